package cli

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"path/filepath"

	ucli "github.com/urfave/cli/v2"

	"github.com/waybill-ml/waybill/edge-runtime/deviceinput"
	"github.com/waybill-ml/waybill/edge-runtime/devicepolicy"
	"github.com/waybill-ml/waybill/edge-runtime/engine"
	"github.com/waybill-ml/waybill/internal/diag"
	"github.com/waybill-ml/waybill/oci/artifact"
	"github.com/waybill-ml/waybill/policy/device"
	"github.com/waybill-ml/waybill/policy/rego"
)

// deviceModule is what --out defaults to with --device.
const deviceModule = "device-policy.wasm"

type devicePackJSON struct {
	Schema string          `json:"schema"`
	Digest artifact.Digest `json:"digest"` // of the module: what trust documents pin
	Policy artifact.Digest `json:"policy"` // of the Rego that it was made of
	Bytes  int             `json:"bytes"`
	File   string          `json:"file"`
	DryRun bool            `json:"dryRun"`
}

// packDevice is policy pack --device.
func packDevice(ctx context.Context, c *Call) error {
	if c.String("tag") != "" {
		return diag.New(diag.Usage, "policy pack: --device writes a file; --tag is for policies of the gate")
	}
	if c.Arg(0) == "" {
		return diag.New(diag.Usage, "policy pack --device: PATH is missing; the builtin policy has no part for devices").
			Hint("waybill policy pack ./policy --device --out %s", deviceModule)
	}
	b, _, err := c.openPolicy(c.Arg(0))
	if err != nil {
		return err
	}
	m, err := device.Compile(ctx, b)
	if err != nil {
		return diag.Wrap(diag.Failure, err, "%s", policySource(c.Arg(0)))
	}
	// What no device could load is not packed.
	if err := withDevicePolicy(ctx, m.Code, func(*devicepolicy.Policy) error { return nil }); err != nil {
		return diag.Wrap(diag.Failure, err, "%s", policySource(c.Arg(0)))
	}
	out := c.String("out")
	if out == "" {
		out = deviceModule
	}
	res := devicePackJSON{Schema: schemaBase + "device-policy-pack/v1", Digest: m.Digest, Policy: b.Digest(), Bytes: len(m.Code), File: c.Abs(out), DryRun: c.Bool("dry-run")}
	if err := c.writeNew(res.File, m.Code, 0o644, c.Bool("force")); err != nil {
		return err
	}
	if c.UI.JSON {
		return c.UI.PrintJSON(res)
	}
	c.UI.Say("device policy of %d bytes in %s; its digest, which trust documents pin (waybill trust add trust.yaml --policy DIGEST):", len(m.Code), filepath.Base(res.File))
	c.UI.Data("%s", m.Digest)
	return nil
}

// withDevicePolicy loads a module as devices do and calls do with it.
func withDevicePolicy(ctx context.Context, code []byte, do func(*devicepolicy.Policy) error) (err error) {
	e, err := engine.New(ctx, engine.Config{})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, e.Close(ctx)) }()
	p, err := devicepolicy.Load(ctx, e, code)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, p.Close(ctx)) }()
	return do(p)
}

func policyEvalCommand() Command {
	return Command{
		Name: "eval", Summary: "ask a device-local policy about an input document", Args: "POLICY", Min: 1, Max: 1,
		Long: `Evaluates the device-local part of a policy (package waybill.device) over a document of readings, as a device does: compiled to
WebAssembly, on the same engine. POLICY is a folder, a tar, or a module that policy pack --device wrote. The document is checked
against its schema first (docs/device-policy.md). A device that may not take the model now is exit code 4, with the reasons.`,
		Examples: []string{"waybill policy eval ./policy --input readings.json", "waybill policy eval device-policy.wasm --input readings.json --output json"},
		Flags: []ucli.Flag{
			&ucli.StringFlag{Name: "input", Aliases: []string{"i"}, Usage: "the readings, a `FILE` of waybill.dev/device-input/v1"},
		},
		See:   []string{"policy pack", "policy test"},
		Exits: []diag.Code{diag.Denied, diag.NotFound}, Run: runPolicyEval,
	}
}

type policyEvalJSON struct {
	Schema  string          `json:"schema"`
	Digest  artifact.Digest `json:"digest"` // of the module
	Allow   bool            `json:"allow"`
	Reasons []string        `json:"reasons"`
	Error   string          `json:"error,omitempty"` // why the policy could not decide
}

func runPolicyEval(ctx context.Context, c *Call) error {
	if c.String("input") == "" {
		return diag.New(diag.Usage, "policy eval: --input is missing").Hint("waybill policy eval %s --input readings.json", c.Arg(0))
	}
	code, err := c.deviceModule(ctx, c.Arg(0))
	if err != nil {
		return err
	}
	raw, err := readSmall(c.Abs(c.String("input")), deviceinput.MaxBytes)
	if err != nil {
		return fileError(err, "input", c.String("input"), "waybill policy eval --help")
	}
	if _, err := deviceinput.Parse(raw); err != nil {
		return diag.Wrap(diag.Usage, err, "%s", c.String("input"))
	}
	var d devicepolicy.Decision
	if err := withDevicePolicy(ctx, code, func(p *devicepolicy.Policy) error { d = p.Evaluate(ctx, raw); return nil }); err != nil {
		return diag.Wrap(diag.Failure, err, "%s", c.Arg(0))
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	res := policyEvalJSON{Schema: schemaBase + "device-policy-eval/v1", Digest: artifact.DigestOf(code), Allow: d.Allow, Reasons: d.Reasons}
	if res.Reasons == nil {
		res.Reasons = []string{}
	}
	if d.Err != nil {
		res.Error = d.Err.Error()
	}
	switch {
	case c.UI.JSON:
		if err := c.UI.PrintJSON(res); err != nil {
			return err
		}
	case d.Allow:
		c.UI.Data("allowed")
	default:
		c.UI.Data("not allowed")
	}
	if !d.Allow {
		return diag.New(diag.Denied, "the device waits: %s", d.Why())
	}
	return nil
}

// deviceModule reads a module, or makes it of Rego.
func (c *Call) deviceModule(ctx context.Context, path string) ([]byte, error) {
	raw, err := readSmall(c.Abs(path), devicepolicy.MaxModule)
	if err == nil && bytes.HasPrefix(raw, []byte("\x00asm")) {
		return raw, nil
	}
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fileError(err, "policy", path, "waybill policy pack ./policy --device --out "+deviceModule)
	}
	b, _, err := c.openPolicy(path)
	if err != nil {
		return nil, err
	}
	m, err := device.Compile(ctx, b)
	if err != nil {
		return nil, diag.Wrap(diag.Failure, err, "%s", policySource(path))
	}
	return m.Code, nil
}

// compileTested compiles a policy whose tests are about to run: nil for one that is for devices alone, which is compiled and
// linted as policy pack --device does.
func (c *Call) compileTested(ctx context.Context, path string) (*rego.Policy, fs.FS, error) {
	if path != "" {
		b, fsys, err := c.openPolicy(path)
		if err != nil {
			return nil, nil, err
		}
		if device.Only(b) {
			if _, err := device.Compile(ctx, b); err != nil {
				return nil, nil, diag.Wrap(diag.Failure, err, "%s", policySource(path))
			}
			return nil, fsys, nil
		}
	}
	return c.compilePolicy(ctx, path)
}
