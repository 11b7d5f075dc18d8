package cli

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	ucli "github.com/urfave/cli/v2"

	"github.com/waybill-ml/waybill/internal/diag"
	"github.com/waybill-ml/waybill/internal/ui"
	"github.com/waybill-ml/waybill/oci/artifact"
	"github.com/waybill-ml/waybill/oci/compare"
	"github.com/waybill-ml/waybill/oci/registry"
	"github.com/waybill-ml/waybill/oci/verify"
	"github.com/waybill-ml/waybill/packager/build"
	"github.com/waybill-ml/waybill/packager/project"
)

func inspectCommand() Command {
	return Command{
		Name: "inspect", Group: Ship, Summary: "show what is in an artifact: interface, files, verified evidence",
		Args: "[MODEL|PROJECT|REF|FILE.tar]", Max: 1,
		Long: `Of a model file or a project it shows what the compiled model would be. Of an artifact, also of the one that a file made
by save is about: its inputs and outputs, its files with roles and digests, what is attached, and, where that is at hand,
the tags and channels that lead to it. Everything read is hashed. With --trust every statement is verified too, and shown as
proven or refused with the reason; without it nobody's signature is checked. Whether all that is needed is there is a
question for waybill verify.`,
		Examples: []string{
			"waybill inspect churn:1.0",
			"waybill inspect reg.example/ml/churn:1.0 --trust trust.signed",
			"waybill inspect reg.example/ml/churn@sha256:7c1f... --output json",
			"waybill inspect site.tar",
			"waybill inspect model.onnx",
		},
		Flags: placeFlags(optionalTrustFlag(), trustDigestFlag(), trustedRootFlag()),
		Exits: []diag.Code{diag.Verification, diag.Unsupported, diag.Registry, diag.NotFound},
		See:   []string{"verify", "diff", "predict"},
		Run:   runInspect,
	}
}

// optionalTrustFlag names an anchor of verbs that work without one.
func optionalTrustFlag() ucli.Flag {
	return &ucli.StringFlag{Name: "trust", Usage: "verify statements under this signed trust document `FILE`", EnvVars: []string{"WAYBILL_TRUST"}}
}

type inspectJSON struct {
	Schema       string               `json:"schema"`
	Target       string               `json:"target"` // what was inspected
	Ref          string               `json:"ref,omitempty"`
	Digest       artifact.Digest      `json:"digest,omitempty"`
	MediaType    string               `json:"mediaType,omitempty"`
	ArtifactType string               `json:"artifactType,omitempty"`
	Model        bool                 `json:"model"`            // it is a model that this version reads
	Reason       string               `json:"reason,omitempty"` // why not
	Name         string               `json:"name,omitempty"`
	Version      string               `json:"version,omitempty"`
	Bytes        int64                `json:"bytes"`
	Config       *artifact.Config     `json:"config,omitempty"`
	Interface    *artifact.Interface  `json:"interface,omitempty"`
	Unsigned     []notesJSON          `json:"unsigned,omitempty"` // what pack wrote down for the publisher to sign; no evidence
	Bundled      *artifact.Bundled    `json:"bundled,omitempty"`  // instead of the interface, when it was not compiled
	Layers       []layerJSON          `json:"layers"`
	Evidence     []attachedJSON       `json:"evidence"`
	TrustVersion int                  `json:"trustVersion"`     // that the evidence was verified under; 0: it was not
	Policy       *inspectPolicyJSON   `json:"policy,omitempty"` // of a policy artifact
	Subject      *artifact.Descriptor `json:"subject,omitempty"`
	Tags         []string             `json:"tags,omitempty"`     // that lead here; local places only
	Channels     []pointerJSON        `json:"channels,omitempty"` // whose newest record leads here; local places only

	manifest int64             // its bytes
	ops      map[string]int    // of the model as trained; nil when not known or not asked
	said     []verify.Evidence // statements about it: proven with --trust, else as attached
}

type layerJSON struct {
	Role         artifact.Role   `json:"role,omitempty"`
	Path         string          `json:"path,omitempty"`
	MediaType    string          `json:"mediaType"`
	Digest       artifact.Digest `json:"digest"`
	Size         int64           `json:"size"`
	Target       string          `json:"target,omitempty"`
	PersonalData string          `json:"personalData,omitempty"`
}

func layerList(ls []artifact.Layer) []layerJSON {
	out := []layerJSON{}
	for _, l := range ls {
		out = append(out, layerJSON{l.Role, l.Path, l.Descriptor().MediaType, l.Digest, l.Size, l.Target, l.Personal})
	}
	return out
}

func runInspect(ctx context.Context, c *Call) error {
	out, err := c.look(ctx, c.Arg(0), false)
	if err != nil {
		return err
	}
	if c.UI.JSON {
		return c.UI.PrintJSON(out)
	}
	printInspect(c, out)
	return nil
}

// isLocalModel tells whether an argument is a file, a project or nothing, rather than a reference.
func isLocalModel(c *Call, arg string) (bool, error) {
	if arg == "" {
		return true, nil
	}
	_, err := os.Stat(c.Abs(arg))
	switch {
	case err == nil:
		return true, nil
	case filepath.Ext(arg) == ".onnx" || filepath.Base(arg) == project.FileName:
		if errors.Is(err, fs.ErrNotExist) {
			return true, diag.Wrap(diag.NotFound, err, "inspect")
		}
		return true, diag.Wrap(diag.Failure, err, "inspect")
	}
	return false, nil
}

func inspectModel(ctx context.Context, c *Call, arg string) (*inspectJSON, error) {
	t, err := openTarget(ctx, c, arg)
	if err != nil {
		return nil, err
	}
	in, version := t.Interface, ""
	if t.Input != nil { // a bare file has no version
		version = in.Version
	}
	var ops map[string]int
	if t.Model != nil {
		ops = operators(&t.Model.Source)
	}
	return &inspectJSON{
		ops: ops, Schema: schemaBase + "inspect/v1", Target: t.Name, Model: true, Name: in.Name, Version: version,
		Bytes: int64(len(t.Code) + len(t.Weights)), Interface: in, Layers: []layerJSON{}, Evidence: []attachedJSON{},
	}, nil
}

func describeModel(ctx context.Context, p blobReader, m *artifact.Model, out *inspectJSON) error {
	cb, err := registry.ReadBlob(ctx, p, m.Manifest.Config, artifact.MaxConfig)
	if err != nil {
		return err
	}
	cfg, err := artifact.ParseConfig(cb, m)
	if err != nil {
		return diag.Wrap(diag.Failure, err, "inspect %s", out.Target)
	}
	il, err := m.One(artifact.RoleInterface)
	if err != nil {
		return diag.Wrap(diag.Failure, err, "inspect %s", out.Target)
	}
	ib, err := registry.ReadBlob(ctx, p, il.Descriptor(), artifact.MaxInterface)
	if err != nil {
		return err
	}
	if m.Compiled() {
		if out.Interface, err = build.ParseInterface(ib); err != nil {
			return diag.Wrap(diag.Failure, err, "inspect %s: interface document", out.Target)
		}
	} else if out.Bundled, err = artifact.ParseBundled(ib, m); err != nil {
		return diag.Wrap(diag.Failure, err, "inspect %s: interface document", out.Target)
	}
	out.Model, out.Config = true, &cfg
	out.Name, out.Version, out.Layers = cfg.Descriptor.Name, cfg.Descriptor.Version, layerList(m.Layers)
	return nil
}

func printInspect(c *Call, o *inspectJSON) {
	u := c.UI
	head := strings.TrimSpace(o.Name + " " + o.Version)
	if head == "" {
		head = o.Target
	}
	u.Data("%s  %s", u.Out.Bold(head), ui.Bytes(o.Bytes))
	field := func(label, format string, args ...any) { u.Data("  %-10s %s", label, fmt.Sprintf(format, args...)) }
	if o.Policy != nil {
		printInspectPolicy(u, o.Policy)
	} else if !o.Model {
		field("type", "%s", shortType(o.ArtifactType))
		field("note", "not a model artifact that this version reads: %s", o.Reason)
		if o.Subject != nil {
			field("about", "%s", o.Subject.Digest)
		}
	}
	if o.Config != nil && len(o.Config.Descriptor.Licenses) > 0 {
		field("license", "%s", strings.Join(o.Config.Descriptor.Licenses, ", "))
	}
	if b := o.Bundled; b != nil {
		field("bundled", "as it is: no module, so nothing runs it here")
		facts := []string{b.Format}
		for _, s := range []string{b.Architecture, o.Config.Model.ParamSize, strings.Join(b.Precision, ", "), b.Quantization} {
			if s != "" {
				facts = append(facts, s)
			}
		}
		field("weights", "%s", strings.Join(facts, ", "))
		if b.Parameters > 0 {
			field("parameters", "%s", ui.Count(b.Parameters))
		}
		for _, f := range b.Files {
			if f.Pickle != "" {
				field("careful", "%s %s", f.Path, f.Pickle)
			}
		}
	}
	if in := o.Interface; in != nil {
		field("compiled", "%s, ABI %d, needs waybill-edge %s", in.Compiler, in.ABI, in.MinRuntime)
		for i, p := range in.Inputs {
			field([]string{"inputs", ""}[min(i, 1)], "%s", portText(p))
		}
		for i, p := range in.Outputs {
			field([]string{"outputs", ""}[min(i, 1)], "%s", portText(p))
		}
		for i, s := range in.State {
			field([]string{"state", ""}[min(i, 1)], "%s <- %s", s.Input, s.Output)
		}
		var steps []string
		for _, s := range in.Steps {
			if s.Kind == "step" {
				steps = append(steps, s.Name)
			}
		}
		if len(steps) > 0 {
			field("steps", "%s", strings.Join(steps, ", "))
		}
		mem := fmt.Sprintf("at most %s", ui.Bytes(int64(in.Memory.Max)))
		if in.Memory.Exact {
			mem = fmt.Sprintf("%s for every call, %s of it planned for values", ui.Bytes(int64(in.Memory.Max)), ui.Bytes(int64(in.Memory.Planned)))
		} else if in.Memory.Planned > 0 {
			mem += fmt.Sprintf(", %s of it planned for values, the rest as inputs need", ui.Bytes(int64(in.Memory.Planned)))
		}
		if in.Weights != nil {
			mem += fmt.Sprintf(", weights %s mapped", ui.Bytes(in.Weights.Size))
		}
		field("memory", "%s", mem)
	}
	printFiles(u, o)
	if o.Ref == "" {
		return
	}
	printEvidence(u, o)
	if len(o.Tags)+len(o.Channels) > 0 {
		u.Data("")
	}
	if len(o.Tags) > 0 {
		field("tags", "%s", strings.Join(o.Tags, ", "))
	}
	for i, p := range o.Channels {
		field([]string{"channels", ""}[min(i, 1)], "%s", p.text())
	}
	u.Data("")
	u.Data("%s", o.Ref)
}

// portText writes a port as people do: "features  f32[N,30]".
func portText(p artifact.Port) string {
	if p.Name == "" {
		return compare.Type(p)
	}
	return p.Name + "  " + compare.Type(p)
}
