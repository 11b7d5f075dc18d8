package cli_test

import (
	"bytes"
	"os"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/waybill-ml/waybill/oci/evidence"
	"github.com/waybill-ml/waybill/oci/trust"
	"github.com/waybill-ml/waybill/oci/verify"
)

// policyScriptCommands are the words of the scripts about policies as artifacts:
//
//	policytrust KEY.pub SCOPE ...   the next version of trust.signed, which names these policy keys too
func policyScriptCommands() map[string]func(*testscript.TestScript, bool, []string) {
	return map[string]func(*testscript.TestScript, bool, []string){
		"policytrust": func(ts *testscript.TestScript, neg bool, args []string) {
			if neg || len(args) == 0 || len(args)%2 != 0 {
				ts.Fatalf("usage: policytrust KEY.pub SCOPE ...")
			}
			d, err := verify.TrustSelf([]byte(ts.ReadFile("trust.signed")))
			ts.Check(err)
			d.Version++
			for i := 0; i < len(args); i += 2 {
				pem := bytes.TrimSpace([]byte(ts.ReadFile(args[i])))
				_, id, err := trust.ParsePublic(pem)
				ts.Check(err)
				d.Keys = append(d.Keys, trust.Key{ID: id, Name: args[i], Role: trust.RolePolicy, Public: string(pem) + "\n",
					Scope: trust.Scope{Models: []string{args[i+1]}, Envs: []string{}, Channels: []string{}}})
			}
			digest, err := d.Digest()
			ts.Check(err)
			s, err := evidence.NewStatement(evidence.TypeTrust, "trust", digest, d)
			ts.Check(err)
			ts.Check(os.WriteFile(ts.MkAbs("trust.signed"), append(signWith(ts, "root.key", s), '\n'), 0o600))
		},
	}
}
