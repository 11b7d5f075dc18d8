package audit

import (
	_ "embed"
	"fmt"
	"html/template"
	"io"
	"strings"

	"github.com/waybill-ml/waybill/oci/artifact"
)

//go:embed report.html
var pageSource string

// HTML writes the report as one page that needs nothing else: no script, no font, no request.
func (r *Report) HTML(w io.Writer) error {
	statements := map[artifact.Digest]bool{}
	for _, s := range r.Statements {
		statements[s.Bundle] = true
	}
	t, err := template.New("report").Funcs(template.FuncMap{
		"short":  func(d artifact.Digest) string { return d.Short() },
		"anchor": func(d artifact.Digest) string { return "b-" + d.Short() },
		"linked": func(d artifact.Digest) bool { return statements[d] },
		"lower":  strings.ToLower,
		"count":  func(s Status) int { return r.Counts[s] },
		"key":    short,
	}).Parse(pageSource)
	if err != nil {
		return fmt.Errorf("report page: %w", err)
	}
	if err := t.Execute(w, r); err != nil {
		return fmt.Errorf("report page: %w", err)
	}
	return nil
}
