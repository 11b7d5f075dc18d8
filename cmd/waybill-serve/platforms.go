package main

import (
	"cmp"
	"net/http"
	"runtime"

	"github.com/waybill-ml/waybill/edge-runtime/scoring"
	"github.com/waybill-ml/waybill/internal/diag"
)

func (p *process) scoring(h http.Handler) scoring.Config {
	return scoring.Config{Model: p.o.model, Protocol: h, MaxBody: p.o.maxBody, Parallel: 2 * runtime.GOMAXPROCS(0)}
}

func sageMaker(p *process, h http.Handler) (http.Handler, error) {
	return scoring.SageMaker(p.scoring(h)), nil
}

// vertex answers on the routes that the platform names. Its defaults have the names of things that exist only there, so without
// them it is the two paths that its documentation's examples use.
func vertex(p *process, h http.Handler) (http.Handler, error) {
	r, err := scoring.Vertex(p.scoring(h), cmp.Or(p.getenv("AIP_HEALTH_ROUTE"), "/health"), cmp.Or(p.getenv("AIP_PREDICT_ROUTE"), "/predict"))
	if err != nil {
		return nil, diag.Wrap(diag.Usage, err, "AIP_HEALTH_ROUTE and AIP_PREDICT_ROUTE")
	}
	return r, nil
}
