package cli

import (
	"context"
	"fmt"

	ucli "github.com/urfave/cli/v2"

	"github.com/waybill-ml/waybill/internal/diag"
	"github.com/waybill-ml/waybill/internal/version"
	"github.com/waybill-ml/waybill/oci/artifact"
	"github.com/waybill-ml/waybill/oci/registry"
	"github.com/waybill-ml/waybill/policy/facts"
	"github.com/waybill-ml/waybill/policy/gate"
	"github.com/waybill-ml/waybill/policy/input"
)

func factsCommand() Command {
	return Command{
		Name: "facts", Group: Govern, Summary: "show what the gate knows about an artifact, before any rule is asked",
		Args: "REF", Min: 0, Max: 1,
		Long: `Reads every layer, verifies every attached signature, looks up what the channel runs now, and prints the
document that the rules would see, byte for byte as the gate hashes it: policy-input/v1, described in docs/facts.md. Evidence
that does not verify stands in it with the reason. Nothing is signed and nothing is written.

--explain adds a summary for people on stderr: what counts, who said it, and what does not count and why. --schema prints the
document's JSON Schema and reads nothing.`,
		Examples: []string{
			"waybill facts reg.example/ml/churn@sha256:7c1f... --env prod",
			"waybill facts churn:1.0 --env staging --explain",
			"waybill facts --schema",
		},
		Flags: append(optionalEnvironment(environmentFlags()),
			&ucli.BoolFlag{Name: "explain", Usage: "sum it up on stderr too"},
			&ucli.BoolFlag{Name: "schema", Usage: "print the JSON Schema of the document"}),
		Exits: []diag.Code{diag.Verification, diag.Registry, diag.NotFound},
		See:   []string{"gate", "policy", "env"},
		Run:   runFacts,
	}
}

// optionalEnvironment lifts the demand for --env, which a command then makes itself.
func optionalEnvironment(flags []ucli.Flag) []ucli.Flag {
	for _, f := range flags {
		if s, ok := f.(*ucli.StringFlag); ok && s.Name == "env" {
			s.Required = false
		}
	}
	return flags
}

func runFacts(ctx context.Context, c *Call) error {
	switch {
	case c.Bool("schema") && (len(c.Args) > 0 || c.String("env") != "" || c.Bool("explain")):
		return diag.New(diag.Usage, "--schema goes without REF, --env and --explain").Hint("waybill facts --schema")
	case c.Bool("schema"):
		return c.factsOut(input.SchemaJSON())
	case len(c.Args) == 0:
		return diag.New(diag.Usage, "REF is missing").Hint("waybill facts REF --env ENV")
	case c.String("env") == "":
		return diag.New(diag.Usage, "--env is missing").Hint("waybill facts %s --env ENV", c.Args[0])
	}
	rq, place, err := c.gateRequest(ctx, c.Args[0])
	if err != nil {
		return err
	}
	defer place.Close()
	src := facts.FromRepository(place)
	r, err := gate.Facts(ctx, src, src, rq)
	if err != nil {
		return err
	}
	b, err := r.Input.Canonical()
	if err != nil {
		return err
	}
	if err := c.factsOut(b); err != nil {
		return err
	}
	if c.Bool("explain") {
		c.explainFacts(&r.Input, artifact.DigestOf(b))
	}
	return nil
}

func (c *Call) factsOut(b []byte) error {
	if _, err := c.UI.Out.Write(b); err != nil {
		return fmt.Errorf("write facts: %w", err)
	}
	return nil
}

// gateRequest opens everything that the gate's question needs, except the policy.
func (c *Call) gateRequest(ctx context.Context, arg string) (gate.Request, *openPlace, error) {
	doc, err := c.loadTrust()
	if err != nil {
		return gate.Request{}, nil, err
	}
	envs, err := c.loadEnvironments(doc)
	if err != nil {
		return gate.Request{}, nil, err
	}
	place, ref, d, err := c.openModel(ctx, arg)
	if err != nil {
		return gate.Request{}, nil, err
	}
	certs, err := c.certificates()
	if err != nil {
		place.Close()
		return gate.Request{}, nil, err
	}
	return gate.Request{
		Certificates: certs,
		Ref:          refText(ref), Pinned: ref.Digest != "", Digest: d.Digest, Environment: c.String("env"), Environments: envs,
		Trust: doc, Now: c.Env.Now(), TimeSource: "host", Version: version.Number,
	}, place, nil
}

// refText is the reference as the facts record it: without the place of a layout on this machine.
func refText(r registry.Ref) string {
	if r.Kind == registry.KindLayout {
		t := r.Target()
		if r.Digest != "" {
			return "layout@" + t
		}
		return "layout:" + t
	}
	return r.String()
}
