package lint

import (
	"encoding/json"
	"net/url"
	"slices"
	"strconv"

	"github.com/waybill-ml/waybill/oci/artifact"
)

// SARIF writes findings as a SARIF 2.1.0 log: one descriptor for each code, suppressed findings marked as such, and what
// lint would write instead as fixes.
func SARIF(fs []Finding, version string) ([]byte, error) {
	type m = map[string]any
	rules := []m{}
	for _, c := range codes {
		rules = append(rules, m{"id": c.ID, "shortDescription": m{"text": c.Title}, "fullDescription": m{"text": c.Why},
			"help": m{"text": c.Fix}, "defaultConfiguration": m{"level": string(c.Severity)}})
	}
	results := []m{}
	for _, f := range fs {
		r := m{
			"ruleId": f.Code, "ruleIndex": slices.IndexFunc(codes, func(c Code) bool { return c.ID == f.Code }), "level": string(f.Severity),
			"message":             m{"text": f.Message + ". " + f.Why + " Instead: " + f.Fix},
			"partialFingerprints": m{"waybill/v1": string(artifact.DigestOf([]byte(f.Code + "\n" + f.File + "\n" + f.Rule + "\n" + f.Missing)))},
		}
		if f.File != "" {
			region := m{"startLine": max(f.Line, 1)}
			if f.Column > 0 {
				region["startColumn"] = f.Column
			}
			r["locations"] = []m{{"physicalLocation": m{"artifactLocation": m{"uri": uriPath(f.File)}, "region": region}}}
		}
		if f.Suppressed {
			r["suppressions"] = []m{{"kind": "inSource", "justification": f.Reason}}
		}
		if len(f.Edits) > 0 {
			byFile := map[string][]m{}
			var files []string
			for _, e := range f.Edits {
				if byFile[e.File] == nil {
					files = append(files, e.File)
				}
				byFile[e.File] = append(byFile[e.File], m{"deletedRegion": m{"byteOffset": e.Start, "byteLength": e.End - e.Start}, "insertedContent": m{"text": e.New}})
			}
			changes := []m{}
			for _, n := range files {
				changes = append(changes, m{"artifactLocation": m{"uri": uriPath(n)}, "replacements": byFile[n]})
			}
			r["fixes"] = []m{{"description": m{"text": f.Fix}, "artifactChanges": changes}}
		}
		results = append(results, r)
	}
	errs, warnings, suppressed := Count(fs)
	log := m{
		"$schema": "https://json.schemastore.org/sarif-2.1.0.json", "version": "2.1.0",
		"runs": []m{{
			"tool":       m{"driver": m{"name": "waybill policy lint", "version": version, "informationUri": "https://github.com/waybill-ml/waybill", "rules": rules}},
			"columnKind": "unicodeCodePoints", "results": results,
			"properties": m{"errors": strconv.Itoa(errs), "warnings": strconv.Itoa(warnings), "suppressed": strconv.Itoa(suppressed)},
		}},
	}
	b, err := json.MarshalIndent(log, "", "  ")
	if err != nil {
		return nil, err
	}
	return append(b, '\n'), nil
}

// uriPath writes a path with slashes as a URI reference; a colon in its first segment is none of a scheme's.
func uriPath(p string) string { return (&url.URL{Path: p}).String() }
