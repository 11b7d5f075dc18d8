package cli_test

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"strings"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/waybill-ml/waybill/oci/artifact"
	"github.com/waybill-ml/waybill/oci/evidence"
	"github.com/waybill-ml/waybill/oci/sign"
	"github.com/waybill-ml/waybill/oci/trust"
	"github.com/waybill-ml/waybill/oci/verify"
	"github.com/waybill-ml/waybill/policy/environments"
)

// policyScriptCommands are the words of the scripts about policies as artifacts:
//
//	policytrust KEY.pub SCOPE ...   the next version of trust.signed, which names these policy keys too
//	denytrust DIGEST                the next version of trust.signed, which denies the digest
//	environments SOURCE DIGEST [+]  environments.signed: prod with this policy; + is more of its policy in YAML
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
			signTrust(ts, d)
		},
		"denytrust": func(ts *testscript.TestScript, neg bool, args []string) {
			if neg || len(args) != 1 {
				ts.Fatalf("usage: denytrust DIGEST")
			}
			d, err := verify.TrustSelf([]byte(ts.ReadFile("trust.signed")))
			ts.Check(err)
			d.Version++
			d.Denied = append(d.Denied, artifact.Digest(args[0]))
			signTrust(ts, d)
		},
		"environments": func(ts *testscript.TestScript, neg bool, args []string) {
			if neg || len(args) < 2 || len(args) > 3 {
				ts.Fatalf("usage: environments SOURCE DIGEST [MORE]")
			}
			y := fmt.Sprintf("version: 1\nenvironments:\n  prod:\n    namespace: ml\n    policy: {source: %q, digest: %q%s}\n", args[0], args[1], strings.Join(args[2:], ""))
			d, err := environments.ParseYAML("environments.yaml", []byte(y))
			ts.Check(err)
			k, err := sign.Load(ts.MkAbs("root.key"), []byte(ts.Getenv("WAYBILL_PASSWORD")))
			ts.Check(err)
			raw, err := environments.Sign(context.Background(), d, k, nil)
			ts.Check(err)
			ts.Check(os.WriteFile(ts.MkAbs("environments.signed"), raw, 0o600))
		},
	}
}

func signTrust(ts *testscript.TestScript, d *trust.Document) {
	digest, err := d.Digest()
	ts.Check(err)
	s, err := evidence.NewStatement(evidence.TypeTrust, "trust", digest, d)
	ts.Check(err)
	ts.Check(os.WriteFile(ts.MkAbs("trust.signed"), append(signWith(ts, "root.key", s), '\n'), 0o600))
}
