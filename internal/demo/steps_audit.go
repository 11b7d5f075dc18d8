package demo

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
)

// stepAudit asks about version 3, which went through everything: released, measured, allowed, deployed, rolled back.
func stepAudit(ctx context.Context, w *world) (string, error) {
	o, err := w.run(ctx, 0, "audit", "show", w.ref("v3"))
	if err != nil {
		return "", err
	}
	w.tail(o.stdout, 100)
	for _, want := range []string{"proven", "publisher", "latency budget"} {
		if !strings.Contains(o.stdout, want) {
			return "", fmt.Errorf("the report does not say %q", want)
		}
	}
	if o, err = w.run(ctx, 0, "audit", "show", w.ref("v3"), "--html", "audit.html", "--output", "json"); err != nil {
		return "", err
	}
	var report struct {
		Counts map[string]int `json:"counts"`
	}
	if err := o.json(&report); err != nil {
		return "", err
	}
	if report.Counts["proven"] == 0 || report.Counts["contradicted"] != 0 {
		return "", fmt.Errorf("the report counts %v", report.Counts)
	}
	page, err := os.ReadFile(w.path("audit.html"))
	if err != nil {
		return "", err
	}
	if !strings.Contains(string(page), w.digests["v3"]) {
		return "", errors.New("the page does not name the digest")
	}
	for _, fetch := range []string{`src="http`, `href="http`, `url(http`, `@import`} {
		if strings.Contains(string(page), fetch) {
			return "", fmt.Errorf("the page fetches something: it holds %s", fetch)
		}
	}
	return fmt.Sprintf("%d answers proven, %d claimed, %d missing; as text, JSON and one page of %d kB",
		report.Counts["proven"], report.Counts["claimed"], report.Counts["missing"], len(page)/1000), nil
}

// next are the commands to try in a kept work area.
func (w *world) next() []string {
	return []string{
		"cd " + shell([]string{w.dir}),
		"waybill registry serve --addr " + w.host + " --root registry &",
		"waybill inspect " + w.repo() + ":2.0.0",
		"waybill verify " + w.repo() + ":2.0.0 --env prod",
		"waybill channel history prod " + w.repo(),
		"waybill-edge run --config " + w.config + " &",
		"waybill-edge history --config " + w.config,
	}
}
