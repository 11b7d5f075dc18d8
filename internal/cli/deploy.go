package cli

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	ucli "github.com/urfave/cli/v2"

	"github.com/waybill-ml/waybill/deploy"
	"github.com/waybill-ml/waybill/deploy/emit"
	"github.com/waybill-ml/waybill/deploy/image"
	"github.com/waybill-ml/waybill/deploy/jsbundle"
	"github.com/waybill-ml/waybill/deploy/rollout"
	"github.com/waybill-ml/waybill/deploy/targets"
	"github.com/waybill-ml/waybill/internal/diag"
	"github.com/waybill-ml/waybill/internal/fsx"
	"github.com/waybill-ml/waybill/internal/ui"
	"github.com/waybill-ml/waybill/oci/artifact"
	"github.com/waybill-ml/waybill/oci/evidence"
	"github.com/waybill-ml/waybill/oci/trust"
)

func deployCommand() Command {
	return Command{
		Name: "deploy", Group: Fleet, Summary: "bring a digest to the serverless targets of an environment",
		Args: "REF", Min: 1, Max: 1,
		Long: `Brings an artifact to the targets that the signed environments document lists: functions, services, clusters, endpoints. It
refuses without releases by publishers (exit code 3), and without the gate's newest verdict for this environment being a pass
(exit code 4). All targets are planned before any is touched; it asks once; they are changed in the document's order, and when
one fails, those that were changed go back to what they ran (exit code 8). Each move is signed by the deployer as a deployment
statement and attached to the artifact.

Targets that run images find the artifact's image by its own tag in their repository: waybill image --push puts it there, and it
counts only when publishers signed it. The image is named by digest from then on. What Workers and functions from a zip run is
made on the spot, of the artifact that the verdict is about; waybill-serve is found as waybill image finds it.

With --emit DIR nothing is contacted but registries: what would run is written as Kubernetes YAML, templates of SAM and
CloudFormation, and modules of Terraform, for those whose clusters and accounts are moved by a repository.`,
		Examples: []string{
			"waybill deploy reg.example/ml/churn@sha256:... --env prod --key deployer.key",
			"waybill deploy reg.example/ml/churn:2.0 --env prod --dry-run     # the plan, and what somebody changed by hand",
			"waybill deploy reg.example/ml/churn:2.0 --env prod --target eu --weight 10 --yes --key deployer.key",
			"waybill deploy reg.example/ml/churn:2.0 --env prod --emit gitops/",
		},
		Flags: siteFlags(append(signerFlags("deployer"),
			&ucli.IntFlag{Name: "weight", Usage: "`PERCENT` of the traffic for the new release (default: what the target says, else all)"},
			&ucli.DurationFlag{Name: "wait", Usage: "how `LONG` a new revision may take to become healthy (default: what the target says)"},
			&ucli.StringFlag{Name: "emit", Usage: "write files for kubectl, SAM, CloudFormation and Terraform into `DIR` instead"},
			&ucli.StringFlag{Name: "runtime", Usage: "waybill-serve `FILE`, or a release's folder, for functions from a zip", EnvVars: []string{"WAYBILL_SERVE"}},
			runtimeDigestFlag(),
			yesFlag(),
			&ucli.BoolFlag{Name: "dry-run", Usage: "plan, ask the platforms, and change nothing"},
		)...),
		Exits: []diag.Code{diag.Verification, diag.Denied, diag.Unsupported, diag.Registry, diag.NotFound, diag.RolledBack},
		See:   []string{"image", "gate", "status", "promote", "rollback"},
		Run:   runDeploy,
	}
}

// deployJSON is the result of deploy.
type deployJSON struct {
	Schema      string           `json:"schema"`
	Ref         string           `json:"ref"`
	Digest      artifact.Digest  `json:"digest"`
	Model       string           `json:"model"`
	Version     string           `json:"version"`
	Environment string           `json:"environment"`
	Verdict     artifact.Digest  `json:"verdict"` // bundle that let it pass
	DryRun      bool             `json:"dryRun"`
	Targets     []deployStepJSON `json:"targets"`
}

type deployStepJSON struct {
	Name     string            `json:"name"`
	Kind     string            `json:"kind"`
	State    rollout.State     `json:"state"`
	From     artifact.Digest   `json:"from"`            // that ran before; empty: nothing of Waybill's
	Image    string            `json:"image,omitempty"` // by digest
	Weight   int               `json:"weight"`          // percent of the traffic that the release has, or would get
	Changes  []changeJSON      `json:"changes"`
	Drift    []changeJSON      `json:"drift"` // changed by hand since
	IDs      map[string]string `json:"ids,omitempty"`
	URL      string            `json:"url,omitempty"`
	Error    string            `json:"error,omitempty"`
	Undo     string            `json:"undo,omitempty"`   // why it could not go back
	Unsaid   string            `json:"unsaid,omitempty"` // why a move could not be attested
	Attested bool              `json:"attested"`
}

type changeJSON struct {
	Field string `json:"field"`
	Old   string `json:"old"`
	New   string `json:"new"`
	Why   string `json:"why,omitempty"`
}

func runDeploy(ctx context.Context, c *Call) error {
	if w := c.Int("weight"); c.IsSet("weight") && (w < 1 || w > 100) {
		return diag.New(diag.Usage, "--weight %d is not between 1 and 100", w).Hint("to see what would be done, and do nothing: --dry-run")
	}
	x, err := c.site(false)
	if err != nil {
		return err
	}
	var k author
	if !c.Bool("dry-run") && c.String("emit") == "" {
		if k, err = c.author(ctx, trust.RoleDeployer); err != nil {
			return err
		}
	}
	s, err := c.subject(ctx, c.Args[0])
	if err != nil {
		return err
	}
	defer s.Close()
	proof, err := x.admit(ctx, c, s, false)
	if err != nil {
		return err
	}
	if err := x.mayRecord(c, k, s); err != nil {
		return err
	}
	out := deployJSON{
		Schema: schemaBase + "deploy/v1", Ref: s.Pinned(), Digest: s.Desc.Digest, Model: s.Name, Version: s.Version, Environment: x.name,
		Verdict: proof.Refs[len(proof.Refs)-1].Digest, DryRun: c.Bool("dry-run"), Targets: []deployStepJSON{},
	}
	c.UI.Field("model", "%s %s", s.Name, s.Version)
	c.UI.Field("verdict", "%s for %s until %s", c.UI.Err.Green("PASSED"), x.name, proof.Verdict.Waybill.NotAfter.Format(time.RFC3339))
	work, err := os.MkdirTemp("", "waybill-deploy-")
	if err != nil {
		return diag.Wrap(diag.Failure, err, "make a place to work in")
	}
	defer func() { _ = os.RemoveAll(work) }()
	releases, err := x.releases(ctx, c, s, work)
	if err != nil {
		return err
	}
	if dir := c.String("emit"); dir != "" {
		return x.emit(c, dir, s, releases)
	}
	places := x.open(ctx, c)
	for i := range places {
		places[i].Release = releases[i]
	}
	run, err := rollout.Plan(ctx, x.name, places, c.Env.Now)
	if err != nil {
		return x.failed(err, diag.Failure, "plan the deployment to %s", x.name)
	}
	x.showPlan(c, run)
	if c.Bool("dry-run") {
		c.UI.Say("dry run: nothing was changed")
		return x.result(c, out, run, s)
	}
	if n := run.Pending(); n > 0 {
		if err := c.agreed("deploy %s %s to %s of %s?", s.Name, s.Version, ui.Plural(n, "target"), x.name); err != nil {
			return err
		}
	}
	err = run.Apply(ctx, &attester{site: x, place: s.Place, ref: s.Ref, key: k})
	x.showResult(c, run)
	if perr := x.result(c, out, run, s); err == nil {
		return perr
	}
	return x.deployError(run, err)
}

// mayRecord asks whether the trust document lets k sign what will be attested, before anything is changed.
func (x *site) mayRecord(c *Call, k author, s *subject) error {
	if k == nil {
		return nil
	}
	if g, ok := k.(*guest); ok {
		g.env = x.name // who that is stands in the certificate; it is asked before anything is attached
		return nil
	}
	return c.ready(x.doc, k, evidence.TypeDeployment, s.Name, x.name)
}

// bundler are settings whose target runs a folder of files, which they make of the artifact itself.
type bundler interface {
	Bundle(ctx context.Context, dir string, manifest []byte, src jsbundle.Source) error
}

// bundle makes it. What the folder holds was verified by the digest that the verdict is about.
func (x *site) bundle(ctx context.Context, s *subject, e targets.Entry, b bundler, dir string, r *deploy.Release) error {
	manifest, _, err := s.Place.Manifest(ctx, s.Desc.Digest)
	if err != nil {
		return err
	}
	if err := b.Bundle(ctx, dir, manifest, s.Place); err != nil {
		var d *diag.Error
		if errors.As(err, &d) {
			return err
		}
		return x.failed(err, diag.Unsupported, "target %s: make the bundle", e.Name)
	}
	r.Bundle = dir
	return nil
}

// machine are settings whose target runs a folder with a program, which is made here.
type machine interface {
	Machine() string // as GOARCH names it
}

// folder makes it, of the artifact with its evidence and the runtime that --runtime names or that is found as waybill image finds it.
func (x *site) folder(ctx context.Context, c *Call, s *subject, e targets.Entry, arch, dir string, r *deploy.Release) error {
	doc, raw, err := c.trustFile()
	if err != nil {
		return err
	}
	if err := os.Mkdir(dir, 0o700); err != nil {
		return diag.Wrap(diag.Failure, err, "make a place to work in")
	}
	st, err := image.Stage(ctx, s.Place, filepath.Join(dir, "models"), image.Content{
		Digest: s.Desc.Digest, Model: s.Name, Version: s.Version, Trust: raw, Doc: doc, Now: c.Env.Now(),
	})
	if err != nil {
		return err
	}
	rs, err := c.runtimes(ctx, []image.Platform{{OS: "linux", Arch: arch}}, dir)
	if err != nil {
		return err
	}
	r.Bundle, r.Arches = filepath.Join(dir, "function"), []string{arch}
	c.UI.Why("%s: waybill-serve %s", e.Name, rs[0].How)
	return image.Folder(st, rs[0], r.Bundle)
}

// releases finds what each target shall run; bundles are made in work.
func (x *site) releases(ctx context.Context, c *Call, s *subject, work string) ([]deploy.Release, error) {
	var out []deploy.Release
	for _, e := range x.entries {
		r := deploy.Release{Digest: s.Desc.Digest, Model: s.Name, Ver: s.Version, Weight: e.Weight, Wait: e.Wait}
		if c.IsSet("weight") {
			r.Weight = c.Int("weight")
		}
		if c.IsSet("wait") {
			r.Wait = c.Duration("wait")
		}
		if b, ok := e.Settings.(bundler); ok && c.String("emit") == "" {
			if err := x.bundle(ctx, s, e, b, filepath.Join(work, e.Name), &r); err != nil {
				return nil, err
			}
			out = append(out, r)
			continue
		}
		if b, ok := e.Settings.(machine); ok && e.Runs == targets.Bundle && c.String("emit") == "" {
			if err := x.folder(ctx, c, s, e, b.Machine(), filepath.Join(work, e.Name), &r); err != nil {
				return nil, err
			}
			out = append(out, r)
			continue
		}
		if e.Runs != targets.Image && c.String("emit") == "" {
			return nil, diag.New(diag.Unsupported, "target %s: deploy makes no bundles for the kind %s yet", e.Name, e.Kind).
				Hint("deploy the others: waybill deploy %s --env %s --target NAME", s.Pinned(), x.name)
		}
		if e.Runs == targets.Image {
			if err := x.image(ctx, c, s, e, &r); err != nil {
				return nil, err
			}
		}
		out = append(out, r)
	}
	return out, nil
}

// image finds the artifact's image in the target's repository. It counts when the publishers that the trust document demands have
// signed it: a label is only what somebody with the right to push there wrote.
func (x *site) image(ctx context.Context, c *Call, s *subject, e targets.Entry, r *deploy.Release) error {
	variant := image.Variant(e.Variant)
	build := fmt.Sprintf("waybill image %s --variant %s --push %s --key publisher.key", s.Pinned(), variant, e.Image)
	ref, p, err := c.repository(ctx, e.Image)
	if err != nil {
		return err
	}
	defer p.Close()
	f, err := image.Lookup(ctx, p, s.Desc.Digest, variant)
	if diag.CodeOf(err) == diag.NotFound {
		return diag.New(diag.NotFound, "target %s: %s has no image of %s for the contract %s", e.Name, e.Image, s.Desc.Digest.Short(), variant).Hint("%s", build)
	}
	if err != nil {
		return err
	}
	if err := c.released(ctx, p, f.Root.Digest, s.Name, x.doc, x.certs); err != nil {
		return diag.Wrap(diag.Verification, err, "target %s: the image %s is not signed by a publisher", e.Name, ref.WithDigest(f.Root.Digest)).Hint("%s", build)
	}
	r.Image, r.Arches, r.Size = ref.WithDigest(f.Root.Digest).String(), f.Arches, f.Size
	c.UI.Why("%s: image %s for %s, %s, signed", e.Name, r.Image, strings.Join(f.Arches, ", "), ui.Bytes(f.Size))
	return nil
}

// agreed asks on the terminal.
func (c *Call) agreed(format string, args ...any) error {
	if c.Bool("yes") {
		return nil
	}
	if !c.Env.StdinTTY || !c.Env.StderrTTY {
		return diag.New(diag.Usage, "%s: there is no terminal to ask on", c.Path).Hint("waybill %s %s --env %s --yes ...", c.Path, strings.Join(c.Args, " "), c.String("env"))
	}
	fmt.Fprintf(c.Env.Stderr, format+" [y/N] ", args...)
	line, err := bufio.NewReader(io.LimitReader(c.Env.Stdin, 64)).ReadString('\n')
	if err != nil && !errors.Is(err, io.EOF) {
		return diag.Wrap(diag.Failure, err, "read the answer")
	}
	if a := strings.ToLower(strings.TrimSpace(line)); a == "y" || a == "yes" {
		return nil
	}
	return diag.New(diag.Failure, "%s: nothing was changed", c.Path)
}

// emit writes the files of --emit.
func (x *site) emit(c *Call, dir string, s *subject, releases []deploy.Release) error {
	var ps []emit.Place
	for i, e := range x.entries {
		ps = append(ps, emit.Place{Entry: e, Release: releases[i]})
	}
	files, err := emit.Render(x.name, ps)
	if err != nil {
		e := x.failed(err, diag.Failure, "write down the deployment to %s", x.name)
		if d, ok := e.(*diag.Error); ok && errors.Is(err, emit.ErrKind) {
			d.Code = diag.Unsupported
			d.Hint("leave it out: waybill deploy %s --env %s --emit %s --target NAME", s.Pinned(), x.name, dir)
		}
		return e
	}
	if !c.Bool("dry-run") {
		if err := emit.Write(fsx.OS{}, c.Abs(dir), files); err != nil {
			return diag.Wrap(diag.Failure, err, "write into %s", dir)
		}
	} else {
		c.UI.Say("dry run: nothing was written")
	}
	out := emitJSON{Schema: schemaBase + "emit/v1", Ref: s.Pinned(), Digest: s.Desc.Digest, Environment: x.name, DryRun: c.Bool("dry-run"), Files: []emitFileJSON{}}
	for _, f := range files {
		out.Files = append(out.Files, emitFileJSON{f.Path, string(f.Tool), artifact.DigestOf(f.Data), len(f.Data)})
	}
	if c.UI.JSON {
		return c.UI.PrintJSON(out)
	}
	for _, f := range out.Files {
		c.UI.Data("%s", f.Path)
	}
	return nil
}

// emitJSON is the result of deploy --emit.
type emitJSON struct {
	Schema      string          `json:"schema"`
	Ref         string          `json:"ref"`
	Digest      artifact.Digest `json:"digest"`
	Environment string          `json:"environment"`
	DryRun      bool            `json:"dryRun"`
	Files       []emitFileJSON  `json:"files"`
}

type emitFileJSON struct {
	Path   string          `json:"path"` // below the folder
	Tool   string          `json:"tool"`
	Digest artifact.Digest `json:"digest"`
	Bytes  int             `json:"bytes"`
}

func (x *site) kind(name string) string {
	i := slices.IndexFunc(x.entries, func(e targets.Entry) bool { return e.Name == name })
	return x.entries[i].Kind
}

func (x *site) showPlan(c *Call, run *rollout.Rollout) {
	for _, s := range run.Steps {
		p := s.Plan
		what := "nothing to do"
		if s.State == rollout.Planned {
			what = fmt.Sprintf("%s -> %s", shortOr(p.From, "nothing"), p.Release.Digest.Short())
			if p.From == p.Release.Digest {
				what = "settings"
			}
			if w := p.Release.Weight; w%100 != 0 {
				what += fmt.Sprintf(", %d%% of the traffic", w)
			}
		}
		c.UI.Field(s.Name, "%-18s %s", x.kind(s.Name), what)
		for _, ch := range p.Changes {
			if !slices.Contains(p.Drift, ch) {
				c.UI.Field("", "%s", changeText(ch))
			}
		}
		for _, ch := range p.Drift {
			c.UI.Field("", "%s %s", c.UI.Err.Yellow("changed by hand:"), changeText(ch))
		}
	}
}

func changeText(ch deploy.Change) string {
	t := fmt.Sprintf("%s: %s -> %s", ch.Field, cmp.Or(ch.Old, "(none)"), cmp.Or(ch.New, "(none)"))
	if ch.Why != "" {
		t += "  (" + ch.Why + ")"
	}
	return longDigest.ReplaceAllString(t, "$1")
}

// longDigest shortens digests for people; the JSON has them whole.
var longDigest = regexp.MustCompile(`(sha256:[0-9a-f]{12})[0-9a-f]{52}\b`)

func shortOr(d artifact.Digest, other string) string {
	if d == "" {
		return other
	}
	return d.Short()
}

func (x *site) showResult(c *Call, run *rollout.Rollout) {
	for _, s := range run.Steps {
		state := string(s.State)
		switch s.State {
		case rollout.Applied, rollout.Unchanged:
			state = c.UI.Err.Green(state)
		case rollout.Failed, rollout.Left:
			state = c.UI.Err.Red(state)
		}
		if s.Outcome != nil && s.Outcome.URL != "" {
			state += "  " + s.Outcome.URL
		}
		c.UI.Field(s.Name, "%s", state)
	}
}

func (x *site) result(c *Call, out deployJSON, run *rollout.Rollout, s *subject) error {
	if !c.UI.JSON {
		for _, st := range run.Steps {
			if st.State == rollout.Failed {
				return nil // a digest on standard output says that it runs
			}
		}
		c.UI.Data("%s", s.Pinned())
		return nil
	}
	for _, st := range run.Steps {
		j := deployStepJSON{
			Name: st.Name, Kind: x.kind(st.Name), State: st.State, From: st.Plan.From, Image: st.Release.Image, Weight: cmp.Or(st.Release.Weight, 100),
			Changes: changesOf(st.Plan.Changes), Drift: changesOf(st.Plan.Drift), Error: textOf(st.Err), Undo: textOf(st.Undo), Unsaid: textOf(st.Unsaid),
		}
		if o := st.Outcome; o != nil {
			j.IDs, j.URL, j.Attested = o.IDs, o.URL, st.Unsaid == nil
		}
		out.Targets = append(out.Targets, j)
	}
	return c.UI.PrintJSON(out)
}

func changesOf(cs []deploy.Change) []changeJSON {
	out := []changeJSON{}
	for _, c := range cs {
		out = append(out, changeJSON{c.Field, c.Old, c.New, c.Why})
	}
	return out
}

func textOf(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

// deployError tells what became of the targets. RolledBack means that each of them runs what it ran before.
func (x *site) deployError(run *rollout.Rollout, err error) error {
	undone, failed, overtaken := true, false, false
	for _, s := range run.Steps {
		undone = undone && s.Undo == nil && s.State != rollout.Left
		failed = failed || s.State == rollout.Failed
		overtaken = overtaken || s.State == rollout.Failed && errors.Is(s.Err, deploy.ErrConflict)
	}
	switch {
	case !failed:
		return x.failed(err, diag.Failure, "attest the deployment to %s", x.name)
	case undone && overtaken: // who knows what runs there now
		return x.failed(err, diag.Failure, "deploy to %s: what this run changed was taken back", x.name)
	case undone:
		return x.failed(err, diag.RolledBack, "deploy to %s: every target runs what it ran before", x.name)
	}
	return x.failed(err, diag.Failure, "deploy to %s: not every target could be taken back", x.name)
}
