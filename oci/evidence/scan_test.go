package evidence_test

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	vulnsv02 "github.com/in-toto/attestation/go/predicates/vulns/v02"
	"google.golang.org/protobuf/encoding/protojson"

	"github.com/waybill-ml/waybill/oci/artifact"
	"github.com/waybill-ml/waybill/oci/evidence"
)

const scan = `{
 "scanner": {"uri": "pkg:golang/example.com/scanner@1.2", "version": "1.2", "db": {"uri": "https://db.example", "version": "7", "lastUpdate": "2026-11-19T06:00:00Z"},
  "result": [{"id": "CVE-2026-0001", "severity": [{"method": "nvd", "score": "9.8"}], "annotations": [{"package": "libx"}]}]},
 "metadata": {"scanStartedOn": "2026-11-20T06:00:00Z", "scanFinishedOn": "2026-11-20T06:01:00Z"}
}`

// in-toto's own types read the scan, and read it as we do.
func TestVulnsAsInToto(t *testing.T) {
	var theirs vulnsv02.Vulns
	if err := protojson.Unmarshal([]byte(scan), &theirs); err != nil {
		t.Fatal(err)
	}
	ours, err := evidence.ParseVulns([]byte(scan))
	if err != nil {
		t.Fatal(err)
	}
	if ours.Scanner.URI != theirs.GetScanner().GetUri() || !ours.Scanner.DB.LastUpdate.Equal(theirs.GetScanner().GetDb().GetLastUpdate().AsTime()) ||
		ours.Scanner.Result[0].Severity[0].Score != theirs.GetScanner().GetResult()[0].GetSeverity()[0].GetScore() ||
		!ours.Metadata.ScanFinishedOn.Equal(theirs.GetMetadata().GetScanFinishedOn().AsTime()) {
		t.Errorf("ours %+v, theirs %v", ours, &theirs)
	}
	s, err := evidence.NewStatement(evidence.TypeVulns, "m", artifact.DigestOf(nil), json.RawMessage(scan))
	if err != nil {
		t.Fatal(err)
	}
	if at := evidence.ClaimedTime(s); !at.Equal(time.Date(2026, 11, 20, 6, 1, 0, 0, time.UTC)) {
		t.Errorf("claimed at %s", at)
	}
}

func TestVulnsRefused(t *testing.T) {
	for name, c := range map[string]struct{ from, to string }{
		"no list of results":    {`"result":`, `"results":`},
		"no time":               {`"scanFinishedOn":`, `"scanEndedOn":`},
		"ended before it began": {`"scanFinishedOn": "2026-11-20T06:01:00Z"`, `"scanFinishedOn": "2026-11-19T06:01:00Z"`},
		"nameless":              {`"id": "CVE-2026-0001"`, `"id": " "`},
		"no scanner":            {`"uri": "pkg:golang/example.com/scanner@1.2",`, ``},
		"other case":            {`"scanner": {`, `"Scanner": {`},
		"a number for a score":  {`"9.8"`, `9.8`},
	} {
		doc := strings.Replace(scan, c.from, c.to, 1)
		if doc == scan {
			t.Fatalf("%s changes nothing", name)
		}
		if err := evidence.ValidatePredicate(evidence.TypeVulns, []byte(doc)); err == nil {
			t.Errorf("%s is accepted", name)
		}
	}
}

func TestSPDX(t *testing.T) {
	for doc, want := range map[string]string{
		`{"spdxVersion":"SPDX-2.3","packages":[],"creationInfo":{"created":"2026-11-20T06:00:00Z"}}`:                                                    "2026-11-20T06:00:00Z",
		`{"@context":"x","@graph":[{"type":"CreationInfo","created":"2026-11-19T06:00:00Z"},{"type":"CreationInfo","created":"2026-11-21T06:00:00Z"}]}`: "2026-11-21T06:00:00Z",
		`{"spdxVersion":"SPDX-2.3"}`: "",
		`{"packages":[]}`:            "",
		`{"@Graph":[]}`:              "",
	} {
		for _, typ := range []string{evidence.TypeSPDX, evidence.TypeSPDX23} {
			s, err := evidence.NewStatement(typ, "m", artifact.DigestOf(nil), json.RawMessage(doc))
			if (err == nil) != (want != "") {
				t.Errorf("%s: %v", doc, err)
			}
			if err == nil && evidence.ClaimedTime(s).Format(time.RFC3339) != want {
				t.Errorf("%s: at %s", doc, evidence.ClaimedTime(s))
			}
		}
	}
}

// A time that cannot be written in UTC is refused where it counts and claims nothing where it does not.
func TestTimesBeyondTheLastYear(t *testing.T) {
	const late = "9999-12-31T23:59:59-23:00"
	digest := string(artifact.DigestOf(nil))
	for typ, doc := range map[string]string{
		evidence.TypeEvaluation: `{"metrics":[],"at":"` + late + `"}`,
		evidence.TypeApproval:   `{"role":"r","reason":"x","at":"2026-01-01T00:00:00Z","expires":"` + late + `"}`,
		evidence.TypeDataset:    `{"datasets":[{"name":"x","role":"test","digest":"` + digest + `","license":"MIT","personalData":"none","to":"` + late + `"}]}`,
		evidence.TypeVulns:      strings.Replace(scan, "2026-11-19T06:00:00Z", late, 1),
	} {
		if err := evidence.ValidatePredicate(typ, []byte(doc)); err == nil || !strings.Contains(err.Error(), "year 10000") {
			t.Errorf("%s: %v", typ, err)
		}
	}
	s := &evidence.Statement{PredicateType: evidence.TypeCycloneDX, Predicate: []byte(`{"metadata":{"timestamp":"` + late + `"}}`)}
	if at := evidence.ClaimedTime(s); !at.IsZero() {
		t.Errorf("claimed at %s", at)
	}
}
