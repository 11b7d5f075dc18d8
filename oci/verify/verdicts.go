package verify

import (
	"github.com/waybill-ml/waybill/oci/artifact"
	"github.com/waybill-ml/waybill/oci/evidence"
	"github.com/waybill-ml/waybill/oci/trust"
)

// NoVerdict is a bundle that is no verdict of the kind that was looked for, with the reason.
type NoVerdict struct {
	Bundle artifact.Digest
	Why    string
}

// Verdicts picks the gate's verdicts on want.Subject about want.ResourceURI for want.Env out of bundles: those whose
// signature, signer and scope hold, whatever they decide and however old they are. Follow them with evidence.ChainOf. The
// bundles that claim to be verdicts and are none of these are told in others.
func Verdicts(bundles [][]byte, doc *trust.Document, want VSAWant) (found []evidence.Verdict, others []NoVerdict) {
	seen := map[artifact.Digest]bool{}
	for _, raw := range bundles {
		d := artifact.DigestOf(raw)
		if seen[d] {
			continue
		}
		seen[d] = true
		e, err := Bundle(raw, doc, Want{
			PredicateType: evidence.TypeVSA, Subject: want.Subject, Model: want.Model, Env: want.Env, Now: want.Now, Certificates: want.Certificates,
		})
		if err != nil {
			if ReasonOf(err) != WrongPredicate {
				others = append(others, NoVerdict{d, err.Error()})
			}
			continue
		}
		if v := e.vsa; v.Waybill.Environment == want.Env && v.ResourceURI == want.ResourceURI {
			found = append(found, evidence.Verdict{Bundle: d, VSA: v})
		} else {
			others = append(others, NoVerdict{d, "a verdict on " + v.ResourceURI + " for " + v.Waybill.Environment})
		}
	}
	return found, others
}
