package sign

import (
	"encoding/json"
	"slices"
	"testing"

	"github.com/waybill-ml/waybill/internal/diag"
	"github.com/waybill-ml/waybill/oci/evidence"
	"github.com/waybill-ml/waybill/oci/trust"
)

// Every role against every predicate type: a key signs what its role may say and refuses the rest before anything is signed.
// Verifiers hold the same table (oci/verify, TestRoleMatrix).
func TestSigningMatrix(t *testing.T) {
	path, _ := generate(t, trust.RolePublisher)
	k, err := Load(path, []byte("secret"))
	if err != nil {
		t.Fatal(err)
	}
	types := []string{
		evidence.TypeRelease, evidence.TypeProvenance, evidence.TypeVSA, evidence.TypeCycloneDX, evidence.TypeOMS, evidence.TypeTestResult,
		evidence.TypeEvaluation, evidence.TypeDataset, evidence.TypeApproval, evidence.TypeException, evidence.TypeDecision, evidence.TypeDeployment,
		evidence.TypeChannel, evidence.TypeStatus, evidence.TypeTrust, evidence.TypeEnvironments, evidence.TypePolicy, "https://example.com/review/v1", "nonsense",
	}
	for _, role := range trust.Roles() {
		as := *k // the same key in another role: what counts is the role
		as.role = role
		for _, typ := range types {
			s := &evidence.Statement{
				Type: evidence.StatementType, Subject: []evidence.Subject{{Name: "m", Digest: map[string]string{"sha256": subject.Hex()}}},
				PredicateType: typ, Predicate: json.RawMessage("{}"),
			}
			_, err := as.Sign(t.Context(), s)
			may := slices.Contains(trust.RolesFor(typ), role) || typ == "https://example.com/review/v1" && slices.Contains(trust.CustomRoles(), role)
			if (err == nil) != may || err != nil && diag.CodeOf(err) != diag.Usage {
				t.Errorf("%s signs %s: %v", role, evidence.NameOf(typ), err)
			}
		}
	}
}
