package cli

import (
	"bytes"
	"context"
	"fmt"
	"text/template"

	"github.com/waybill-ml/waybill/internal/diag"
	"github.com/waybill-ml/waybill/policy/environments"
	"github.com/waybill-ml/waybill/policy/library"
)

// envProfiles are the profiles that env init writes a start for: those of the builtin policy.
func envProfiles() []string { return []string{"baseline", "strict", "eu-high-risk", "edge"} }

var envTemplate = template.Must(template.New("env").Parse(`# What each environment demands of a model; docs/environments.md describes every key. Sign it after every change:
#   waybill env diff environments.signed {{.File}}     # what gets stricter, and what looser
#   waybill env sign {{.File}} --key root.key
version: 1                   # rises with every change
environments:
{{- range $i, $e := .Envs}}
  {{.Name}}:
    namespace: {{$.Namespace}}            # verdicts are about waybill:{{$.Namespace}}/<model>
    channel: {{.Name}}
    policy:
      source: builtin        # or ./folder, policy.tar, reg.example/policies/governance:2.3, layout:PATH:TAG
      digest: {{$.Policy}}
    profile: {{$.Profile}}       # which levels of the policy's rules are in force
    {{- if .After}}
    after: {{.After}}           # its gate must have let the digest pass
    {{- end}}
    notAfterDays: {{if $.High}}30{{else}}90{{end}}         # a verdict is good for so long
    deviceClasses:
      - {name: edge-s, memory: 256MiB{{if $.Edge}}, storage: 512MiB, latencyMs: 50, runtime: "0.1.0"{{end}}}
    metrics:                 # min: higher is better; max: lower is better
      - {name: roc_auc, min: 0.9, maxRegression: 0.005, minN: 100{{if $.High}}, confidence: true{{end}}}
    licenses:
      models: [Apache-2.0, MIT, BSD-3-Clause]
      datasets: [CC-BY-4.0, CC0-1.0]
    evidence: [evaluation, dataset]
    approvals: {minimum: {{$.Approvers}}, roles: [{{$.Roles}}]}
    exceptions: {roles: [], rules: []{{if $.High}}, maxDays: 30{{end}}}
    {{- if $.High}}
    maxEvaluationAgeDays: 90
    maxApprovalAgeDays: 30
    scan: {maxAgeDays: 7, maxDatabaseAgeDays: 7}
    {{- end}}
    {{- if $.EU}}
    maxModelAgeDays: 365
    maxDataAgeDays: 730
    privacyRole: privacy-officer
    maxRisk: high
    shadow: true             # figures of a shadow or canary run
    sections: [users, useCases, limitations, tradeoffs, risks, fairness, oversight]
    {{- end}}
    {{- if and $.EU .After}}
    soakDays: 7
    maxVerdictAgeDays: 30
    {{- end}}
{{- if eq $i 0}}
    # What else can be demanded, with what it is when it is left out:
    # registry: reg.example/ml          # where artifacts live, for people and deploy
    # trust: {minVersion: 1}            # lowest version of the trust document
    # signers: 1                        # distinct publisher keys
    # slices: []                        # slices that each metric must report: [region=north]
    # sliceGaps: []                     # {name: roc_auc, max: 0.05}: largest spread over slices
    # metrics may have slice: region=north and confidence: true; policy may have signed: true
    # licenses may have components: []  # of the bill of materials; empty: any
    # builders: []                      # {id: https://ci.example/build/v1, signers: [], level: 2}; empty: any
    # sources: []                       # repositories: [git+https://git.example/ml/*]; empty: any
    # parameters: []                    # external build parameters that may be set
    # formats: []                       # that may be inside; empty: those that hold no code
    # tests: []                         # names of tests that must have passed
    # enforce: {}                       # RULE: warn or off; mandatory rules stay
    # data: {}                          # settings for policies of your own
    # dataFiles: []                     # limits/prod.yaml: merged into data, and so signed
    # targets: []                       # what deploy reads
    {{- if not $.High}}
    # maxEvaluationAgeDays: 0           # 0: no limit, as for the next ones
    # maxApprovalAgeDays: 0
    # scan: {maxAgeDays: 0, maxDatabaseAgeDays: 0}
    # exceptions may have maxDays: 0
    {{- end}}
    {{- if not $.EU}}
    # maxModelAgeDays: 0
    # maxDataAgeDays: 0
    # privacyRole: ""                   # approver role that personal data needs; none: never allowed
    # maxRisk: ""                       # minimal, limited, high
    # shadow: false                     # figures of a shadow or canary run
    # sections: []                      # of the model card: users, useCases, limitations, tradeoffs, risks, fairness, energy, oversight
    {{- end}}
    # lock: ""                          # where publishers lock the channel: s3://bucket/locks, registry:, git+ssh://...#refs/...
    # after: ""                         # environment whose gate must have let the digest pass; with it
    # soakDays: 0                       # least time since that, and
    # maxVerdictAgeDays: 0              # most
    {{- if not $.Edge}}
    # deviceClasses may have storage: 512MiB, latencyMs: 50, runtime: "0.1.0"
    {{- end}}
{{- end}}
{{- end}}
`))

func runEnvInit(_ context.Context, c *Call) error {
	names := c.Args
	if len(names) == 0 {
		names = []string{"prod"}
	}
	b, err := library.Default()
	if err != nil {
		return err
	}
	type env struct{ Name, After string }
	data := struct {
		File, Namespace, Policy, Profile, Roles string
		Approvers                               int
		High, EU, Edge                          bool
		Envs                                    []env
	}{File: c.String("out"), Namespace: c.String("namespace"), Policy: string(b.Digest()), Profile: c.String("profile")}
	switch data.Profile {
	case "baseline":
	case "edge":
		data.Edge = true
	case "strict":
		data.High, data.Approvers, data.Roles = true, 1, "ml-lead"
	case "eu-high-risk":
		data.High, data.EU, data.Approvers, data.Roles = true, true, 2, "ml-lead, risk-officer"
	default:
		e := diag.New(diag.Usage, "--profile %s: the builtin policy has %v", data.Profile, envProfiles())
		if near := diag.Nearest(data.Profile, envProfiles()); near != "" {
			return e.Hint("waybill env init --profile %s", near)
		}
		return e.Hint("waybill env init --profile baseline, then set profile: in the file")
	}
	for i, n := range names {
		e := env{Name: n}
		if i > 0 {
			e.After = names[i-1]
		}
		data.Envs = append(data.Envs, e)
	}
	var buf bytes.Buffer
	if err := envTemplate.Execute(&buf, data); err != nil {
		return fmt.Errorf("env init: %w", err)
	}
	out := c.Abs(c.String("out"))
	// What it writes must be what it reads: bad names end here, and no file is left.
	if _, err := environments.ParseYAML(c.String("out"), buf.Bytes()); err != nil {
		return diag.Wrap(diag.Usage, err, "env init")
	}
	if err := c.writeNew(out, buf.Bytes(), 0o644, c.Bool("force")); err != nil {
		return err
	}
	if c.UI.JSON {
		return c.UI.PrintJSON(map[string]any{"schema": schemaBase + "env-init/v1", "file": out, "environments": names, "policyDigest": b.Digest(), "profile": data.Profile})
	}
	c.UI.Say("next: edit it, then waybill env sign %s --key root.key", c.String("out"))
	c.UI.Data("%s", out)
	return nil
}
