package deptest

import (
	"strings"
	"testing"
)

// heavy is what a device must never carry: each of these costs megabytes or brings a network path into verification.
var heavy = []string{
	"./packager/...", "./deploy/...", "./audit/...", "./oci/sign/...", "./oci/server/...", "./policy/...", "./internal/cli/...",
	"github.com/sigstore/cosign/...", "github.com/sigstore/sigstore-go/...", "github.com/open-policy-agent/opa/...",
	"google.golang.org/grpc/...", "github.com/urfave/cli/...", "github.com/docker/...", "github.com/sirupsen/...",
}

// rules is the table of the house (docs/ARCHITECTURE.md draws it).
var rules = []Rule{
	{From: []string{"./edge-runtime/...", "./cmd/waybill-edge", "./cmd/waybill-serve"}, Deny: heavy, Allow: []string{"./oci/verify"},
		Why: "the runtime stays small and verifies without a network path: no compiler, no OPA, no cosign, no gRPC, no urfave/cli, no docker"},
	{From: []string{"./cmd/waybill-serve"}, Deny: []string{"./edge-runtime/agent", "./edge-runtime/state", "./edge-runtime/journal", "./edge-runtime/carrier", "./edge-runtime/config",
		"./edge-runtime/device", "./oci/store", "./oci/registry", "./oci/fetch", "./oci/devicekey", "github.com/google/...", "os/exec"},
		Why: "an image is replaced, not updated: its server fetches nothing, keeps nothing and starts nothing"},
	{From: []string{"./edge-runtime/..."}, Except: []string{"./edge-runtime/config", "./edge-runtime/enroll", "./edge-runtime/control", "./edge-runtime/view", "./edge-runtime/doctor", "./edge-runtime/device"},
		Deny: []string{"./edge-runtime/config", "./edge-runtime/enroll", "./edge-runtime/control", "./edge-runtime/view", "./edge-runtime/doctor", "./edge-runtime/device"},
		Why:  "what runs on a device is handed what it needs: files that people write, and the screens that they read, lie above it"},
	{From: []string{"./edge-runtime/config"}, Deny: []string{"./edge-runtime/agent", "./edge-runtime/serve", "./edge-runtime/state", "./edge-runtime/journal", "./edge-runtime/control"},
		Why: "a configuration is read and checked without the parts that act on it"},
	{From: []string{"./edge-runtime/enroll", "./edge-runtime/doctor", "./edge-runtime/view"}, Deny: []string{"./edge-runtime/device", "./edge-runtime/serve"},
		Why: "to enrol, look at and examine a device takes nothing that serves"},
	{From: []string{"./packager/..."}, Deny: []string{"./edge-runtime/..."}, Allow: []string{"./edge-runtime/abi"}, Direct: true,
		Why: "of the runtime the packager knows only the ABI; what runs modules is handed in by cmd"},
	{From: []string{"./packager/..."}, Deny: []string{"./oci/..."}, Allow: []string{"./oci/artifact", "./oci/evidence", "./oci/store"}, Direct: true,
		Why: "the packager writes bundles; signing, transfer and verification are others' work"},
	{From: []string{"./packager/frontend/..."}, Deny: []string{"./packager/..."}, Allow: []string{"./packager/ir", "./packager/frontend/..."},
		Why: "a frontend turns a file into ir and knows nothing of what follows"},
	{From: []string{"./packager/frontend/onnx/..."}, Deny: []string{"./packager/frontend/xgboost/...", "./packager/frontend/lightgbm/..."},
		Why: "frontends never import each other"},
	{From: []string{"./packager/interp/..."}, Deny: []string{"./packager/..."}, Allow: []string{"./packager/ir"},
		Why: "the reference interpreter shares no numeric code with the compiler"},
	{From: []string{"./packager/codegen/..."}, Deny: []string{"./packager/interp/...", "./packager/frontend/...", "./packager/pass/..."},
		Why: "code generation sees the graph only"},
	{From: []string{"./packager/pass/..."}, Deny: []string{"./packager/..."}, Allow: []string{"./packager/ir", "./packager/interp"},
		Why: "a pass turns ir into ir; it may let the interpreter move and count, never round (docs/RATIONALE.md)"},
	{From: []string{"./policy/..."}, Deny: []string{"./packager/...", "./deploy/...", "./edge-runtime/...", "./oci/sign/..."},
		Allow: []string{"./edge-runtime/deviceinput"}, // the document that a device-local policy is compiled against
		Why:   "policy sees facts, never the tools that made them, and never holds a key"},
	{From: []string{"./policy/..."}, Except: []string{"./policy/rego/box"}, Deny: []string{"os/exec"}, Direct: true,
		Why: "policy starts no processes, but for the one in which it is evaluated"},
	{From: []string{"./oci/verify"}, Deny: []string{"net", "net/http", "github.com/..."}, Allow: []string{"./..."},
		Why: "verification has no network path"},
	{From: []string{"./oci/publish/lock", "./policy/..."}, Deny: []string{"github.com/aws/...", "./oci/publish/lock/s3lock", "./oci/publish/lock/gitlock"},
		Why: "which locks there are is known everywhere; what one rests on is linked by the command line alone"},
	{From: []string{"./oci/trust", "./oci/channel", "./oci/verify", "./oci/evidence"}, Deny: []string{"./oci/sign/...", "./oci/registry/...", "./oci/store/...", "./oci/server/...", "./policy/...", "./packager/..."},
		Why: "statements and their rules lie below the tools that move and make them"},
	{From: []string{"./packager/ir", "./packager/plan", "./packager/wasmenc", "./edge-runtime/abi", "./edge-runtime/engine/meter", "./oci/artifact", "./policy/decision", "./internal/diag"}, StdOnly: true,
		Allow: []string{"./internal/diag"}, Why: "a leaf imports the standard library only"},
	{From: []string{"./edge-runtime/lambdaapi"}, StdOnly: true,
		Why: "the Runtime API is a loop over net/http around a handler that is handed in"},
	{From: []string{"./cmd/waybill-edge"}, Deny: []string{"./edge-runtime/lambdaapi/..."},
		Why: "a device is no Lambda function"},
	{From: []string{"./policy/report"}, Deny: []string{"github.com/...", "./..."}, Allow: []string{"./policy/decision", "./policy/report"},
		Why: "a report shows a decision; it neither evaluates nor looks anything up"},
	{From: []string{"./deploy"}, Deny: []string{"github.com/...", "./...", "net/http"}, Allow: []string{"./deploy", "./oci/artifact", "./internal/diag"},
		Why: "the noun knows no platform"},
	{From: []string{"./deploy/cloudrun"}, Deny: []string{"./..."}, Allow: []string{"./deploy", "./deploy/cloudrun", "./deploy/google", "./deploy/targets", "./oci/artifact"}, Direct: true,
		Why: "a target knows its platform's client, and no other target"},
	{From: []string{"./deploy/vertex"}, Deny: []string{"./..."}, Allow: []string{"./deploy", "./deploy/vertex", "./deploy/google", "./deploy/retry", "./deploy/targets", "./oci/artifact"}, Direct: true,
		Why: "a target knows its platform's client, and no other target"},
	{From: []string{"./deploy/azureml"}, Deny: []string{"./..."}, Allow: []string{"./deploy", "./deploy/azureml", "./deploy/retry", "./deploy/targets", "./internal/redact", "./oci/artifact"}, Direct: true,
		Why: "a target knows its platform's client, and no other target"},
	{From: []string{"./deploy/google/..."}, Deny: []string{"./..."}, Allow: []string{"./deploy", "./deploy/google/...", "./deploy/retry", "./internal/redact", "./oci/artifact"}, Direct: true,
		Why: "what Google's platforms share knows none of them"},
	{From: []string{"./deploy/sagemaker"}, Deny: []string{"./..."}, Allow: []string{"./deploy", "./deploy/sagemaker", "./deploy/targets", "./internal/redact", "./oci/artifact"}, Direct: true,
		Why: "a target knows its platform's client, and no other target"},
	{From: []string{"./deploy/awstest"}, StdOnly: true,
		Why: "signatures are computed anew, without the SDK's signer"},
	{From: []string{"./deploy/kubernetes"}, Deny: []string{"k8s.io/...", "./..."}, Allow: []string{"./deploy", "./deploy/kubernetes", "./deploy/retry", "./deploy/targets", "./internal/diag", "./internal/redact", "./oci/artifact"},
		Why: "a target knows no other; a Deployment and a Service are written without the libraries of Kubernetes"},
	{From: []string{"./deploy/emit"}, Deny: []string{"./..."}, Allow: []string{"./deploy", "./deploy/emit", "./deploy/targets", "./internal/fsx"}, Direct: true,
		Why: "the tools' syntax knows no platform: targets say what stands in their files"},
	{From: []string{"./deploy/..."}, Deny: []string{"./packager/...", "./policy/...", "./audit/...", "./edge-runtime/agent", "./internal/cli/..."},
		Why: "a target is told what to run; who built it and who let it pass was settled before"},
	{From: []string{"./..."}, Except: []string{"./internal/cli/...", "./cmd/waybill", "./internal/demo/..."}, Deny: []string{"./internal/cli/..."}, Direct: true,
		Why: "nothing below the command line knows it"},
}

// keylessRules hold for the build tag keyless, where waybill-edge links the verifier of certificates: the program itself
// wires it, and nothing below knows it.
var keylessRules = []Rule{
	{From: []string{"./edge-runtime/...", "./oci/verify"}, Deny: heavy, Allow: []string{"./oci/verify"},
		Why: "the runtime sees certificates through an interface only"},
	{From: []string{"./cmd/waybill-edge"}, Deny: []string{
		"./packager/...", "./deploy/...", "./audit/...", "./oci/sign/...", "./oci/server/...", "./policy/...", "./internal/cli/...",
		"github.com/sigstore/cosign/...", "github.com/open-policy-agent/opa/...", "github.com/urfave/cli/...",
	}, Why: "the tag keyless adds sigstore-go to the runtime, not cosign, OPA or what signs"},
}

func TestImportRulesKeyless(t *testing.T) {
	g, err := Load(t.Context(), "../..", "-tags=keyless", "./cmd/waybill-edge", "./edge-runtime/...")
	if err != nil {
		t.Fatal(err)
	}
	if _, ok := g.imports["github.com/sigstore/sigstore-go/pkg/verify"]; !ok {
		t.Fatal("the tag adds no verifier: the rules would check nothing")
	}
	for _, r := range keylessRules {
		for _, v := range g.Check(r) {
			t.Error(v)
		}
	}
}

func TestImportRules(t *testing.T) {
	g, err := Load(t.Context(), "../..", "./...")
	if err != nil {
		t.Fatal(err)
	}
	if len(g.Packages()) < 10 {
		t.Fatalf("only %d packages found: the rules would check nothing", len(g.Packages()))
	}
	for _, r := range rules {
		for _, v := range g.Check(r) {
			t.Error(v)
		}
	}
}

// TestRulesBite plants one forbidden import for each rule and expects it to be reported: a rule whose patterns match
// nothing would pass for ever.
func TestRulesBite(t *testing.T) {
	for i, r := range rules {
		from := strings.TrimSuffix(strings.TrimPrefix(r.From[0], "./"), "/...")
		p := Module + "/" + from
		if r.From[0] == "./..." {
			p = Module + "/oci/store"
		}
		deny := "example.com/anything"
		if len(r.Deny) > 0 {
			deny = strings.TrimSuffix(r.Deny[0], "/...")
			if deny == "." {
				deny = "./anything"
			}
			if rest, ok := strings.CutPrefix(deny, "./"); ok {
				deny = Module + "/" + rest
			}
			deny += "/x"
			if !strings.HasSuffix(r.Deny[0], "/...") {
				deny = strings.TrimSuffix(deny, "/x")
			}
		}
		g := &Graph{imports: map[string][]string{p: {deny}, deny: nil}, std: map[string]bool{}}
		if got := g.Check(r); len(got) != 1 {
			t.Errorf("rule %d (%s): planted %s -> %s, reported %q", i, r.Why, p, deny, got)
		}
	}
}
