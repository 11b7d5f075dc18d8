package enroll

import (
	"context"
	"time"

	"github.com/waybill-ml/waybill/edge-runtime/config"
	"github.com/waybill-ml/waybill/edge-runtime/report"
	"github.com/waybill-ml/waybill/internal/diag"
	"github.com/waybill-ml/waybill/oci/artifact"
	"github.com/waybill-ml/waybill/oci/fleet"
)

type poster struct{ *report.HTTP }

// newPoster is nil when nothing is to be posted.
func newPoster(to config.Report) (*poster, error) {
	if to.URL == "" {
		return nil, nil
	}
	to.To = "http"
	if err := config.CheckReports([]config.Report{to}); err != nil {
		return nil, diag.Wrap(diag.Usage, err, "enroll: --post")
	}
	h, err := to.HTTP()
	if err != nil {
		return nil, err
	}
	return &poster{h}, nil
}

// postWait bounds handing in a request.
const postWait = time.Minute

func (p *poster) post(ctx context.Context, r *fleet.Request) error {
	b, err := artifact.Canonical(r)
	if err != nil {
		return diag.Wrap(diag.Failure, err, "enroll")
	}
	ctx, cancel := context.WithTimeout(ctx, postWait)
	defer cancel()
	if err := p.Post(ctx, b, "application/json", r.Device); err != nil {
		return diag.Wrap(diag.Registry, err, "hand in the request").Line("the device is enrolled; only the request was not handed in").
			Hint("run the same command again")
	}
	return nil
}
