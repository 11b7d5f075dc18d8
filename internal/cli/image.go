package cli

import (
	"bufio"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	ucli "github.com/urfave/cli/v2"

	"github.com/waybill-ml/waybill/deploy"
	"github.com/waybill-ml/waybill/deploy/awslambda"
	"github.com/waybill-ml/waybill/deploy/image"
	"github.com/waybill-ml/waybill/internal/diag"
	"github.com/waybill-ml/waybill/internal/fsx"
	"github.com/waybill-ml/waybill/internal/ui"
	"github.com/waybill-ml/waybill/oci/artifact"
	"github.com/waybill-ml/waybill/oci/evidence"
	"github.com/waybill-ml/waybill/oci/registry"
	"github.com/waybill-ml/waybill/oci/trust"
)

func imageCommand() Command {
	return Command{
		Name: "image", Group: Ship, Summary: "put an artifact and its runtime into a container image",
		Args: "REF", Min: 1, Max: 1,
		Long: `Writes an OCI image with waybill-serve, the artifact, the statements that prove it and the trust document; no container
engine is needed. The artifact is verified now, and again at each start, which fails when anything does not hold. The
image runs as a user without rights on a read-only root and needs no network. The same artifact, evidence, trust document
and runtime give the same bytes anywhere.

--variant is the contract that it follows: plain (HTTP on $PORT), lambda, sagemaker, vertex, or modelcar (KServe). Several
--platform become an index; AWS Lambda takes images of one platform only. waybill-serve is taken from --runtime, a file or
a folder of the release, else from beside this program, else built with go from the source tree around this folder. A
released waybill takes the waybill-serve of its own release only, by digest; --runtime-digest names another.

--compile-cache runs waybill-serve here, natively or in qemu-user, and adds the code that it compiles for this model, which starts
use on a CPU with the same features and compile themselves elsewhere.

--push sends it to a registry, with its bill of materials (CycloneDX) attached; --out writes an archive that podman load and
docker load take and that is an OCI layout (FILE.tar), or an OCI layout in a folder; with --variant lambda also what a function
runs without an image (FILE.zip, for the runtime provided.al2023). With --key a publisher signs image, index and
bill of materials; waybill deploy takes signed images only, and finds them by a tag of their own (waybill-DIGEST-VARIANT).`,
		Examples: []string{
			"waybill image churn:1.0 --push reg.example/images/churn:1.0",
			"waybill image reg.example/ml/churn@sha256:... --variant lambda --platform linux/arm64 --push reg.example/images/churn:1.0-lambda",
			"waybill image churn:1.0 --platform linux/amd64,linux/arm64 --out churn.tar --key publisher.key",
			"waybill image churn:1.0 --variant lambda --platform linux/arm64 --out function.zip",
			"waybill image churn:1.0 --runtime dist --out ./layout --output json",
		},
		Flags: append(trustFlags(), append(signerFlags("publisher"),
			&ucli.StringFlag{Name: "variant", Value: string(image.Plain), Usage: "`CONTRACT` to follow: plain, lambda, sagemaker, vertex, modelcar"},
			&ucli.StringSliceFlag{Name: "platform", Usage: "`OS/ARCH`: linux/amd64 (the default) or linux/arm64; may be repeated"},
			&ucli.StringFlag{Name: "runtime", Usage: "waybill-serve `FILE`, or the folder of a release", EnvVars: []string{"WAYBILL_SERVE"}},
			runtimeDigestFlag(),
			&ucli.StringFlag{Name: "out", Usage: "write archive `FILE.tar`, FILE.zip of a Lambda function, or an OCI layout into a folder"},
			&ucli.StringFlag{Name: "push", Usage: "send it to `HOST/REPO[:TAG]`"},
			&ucli.StringFlag{Name: "name", Usage: "`NAME:TAG` in an archive or a layout (default: the model's name and version)"},
			&ucli.StringSliceFlag{Name: "evidence", Usage: "a statement of `TYPE` must be there too, now and at each start; may be repeated"},
			&ucli.StringFlag{Name: "env", Usage: "`ENVIRONMENT` that such statements are about"},
			&ucli.StringFlag{Name: "channel", Usage: "`CHANNEL` that such statements are about"},
			&ucli.BoolFlag{Name: "compile-cache", Usage: "run the runtime now, and put the code that it compiles into the image"},
			&ucli.StringFlag{Name: "user", Usage: "`UID:GID` that it runs as (default 65532:65532)"},
			&ucli.StringSliceFlag{Name: "label", Usage: "add `NAME=VALUE`; may be repeated"},
			&ucli.BoolFlag{Name: "force", Usage: "overwrite an existing archive"},
			dryRunFlag())...),
		Exits: []diag.Code{diag.Verification, diag.Unsupported, diag.Registry, diag.NotFound},
		See:   []string{"verify", "sign", "push"},
		Run:   runImage,
	}
}

type imageJSON struct {
	Schema    string              `json:"schema"`
	Ref       string              `json:"ref"` // where it went, by digest
	DryRun    bool                `json:"dryRun"`
	Digest    artifact.Digest     `json:"digest"` // of the image, or of the index of several
	MediaType string              `json:"mediaType"`
	Artifact  artifact.Digest     `json:"artifact"`
	Model     string              `json:"model"`
	Version   string              `json:"version"`
	Variant   image.Variant       `json:"variant"`
	Trust     artifact.Digest     `json:"trust"` // digest of the trust document that starts are bound to
	AsOf      time.Time           `json:"asOf"`  // by which a start judges expiry
	Images    []imagePlatformJSON `json:"images"`
	KeyID     string              `json:"keyId,omitempty"` // who signed
}

type imagePlatformJSON struct {
	Platform      string          `json:"platform"`
	Digest        artifact.Digest `json:"digest"`
	Bytes         int64           `json:"bytes"` // that are pulled
	RuntimeBytes  int64           `json:"runtimeBytes"`
	ArtifactBytes int64           `json:"artifactBytes"`
	Runtime       string          `json:"runtime"` // where the program came from
	RuntimeDigest artifact.Digest `json:"runtimeDigest"`
}

// imageJob is what the flags of image ask for.
type imageJob struct {
	variant   image.Variant
	platforms []image.Platform
	options   image.Options
	evidence  []string
	push      *registry.Ref
	file, dir string // --out
	zip       bool   // file is one
	name      string
}

func runImage(ctx context.Context, c *Call) error {
	job, err := c.imageJob()
	if err != nil {
		return err
	}
	doc, raw, err := c.trustFile()
	if err != nil {
		return err
	}
	var k author
	if c.String("key") != "" || c.Bool("keyless") {
		if k, err = c.author(ctx, trust.RolePublisher); err != nil {
			return err
		}
	}
	s, err := c.subject(ctx, c.Args[0])
	if err != nil {
		return err
	}
	defer s.Close()
	if k != nil {
		if _, ok := k.(*guest); !ok {
			if err := c.ready(doc, k, evidence.TypeRelease, s.Name, ""); err != nil {
				return err
			}
		}
	}
	if job.name == "" {
		job.name = s.Name + ":" + s.Version
	}
	work, err := os.MkdirTemp("", "waybill-image-")
	if err != nil {
		return diag.Wrap(diag.Failure, err, "make a place to work in")
	}
	defer os.RemoveAll(work)
	st, err := image.Stage(ctx, s.Place, filepath.Join(work, "models"), image.Content{
		Digest: s.Desc.Digest, Model: s.Name, Version: s.Version, Trust: raw, Doc: doc, Evidence: job.evidence,
		Env: c.String("env"), Channel: c.String("channel"), Now: c.Env.Now(),
	})
	if err != nil {
		return err
	}
	runtimes, err := c.runtimes(ctx, job.platforms, work)
	if err != nil {
		return err
	}
	if job.zip {
		return c.functionZip(st, runtimes[0], job, s, filepath.Join(work, "function"))
	}
	if c.Bool("compile-cache") {
		for i := range runtimes {
			if runtimes[i], err = image.Bake(ctx, st, runtimes[i], work); err != nil {
				return err
			}
		}
	}
	set, err := image.Build(st, runtimes, job.options)
	if err != nil {
		return err
	}
	out := imageJSON{
		Schema: schemaBase + "image/v1", Ref: job.name + "@" + string(set.Root.Digest), DryRun: c.Bool("dry-run"), Digest: set.Root.Digest, MediaType: set.Root.MediaType,
		Artifact: s.Desc.Digest, Model: s.Name, Version: s.Version, Variant: job.variant, Trust: st.TrustDigest, AsOf: st.AsOf,
	}
	for i, x := range set.Images {
		out.Images = append(out.Images, imagePlatformJSON{x.Platform.String(), x.Descriptor.Digest, x.Size, x.Runtime, x.Artifact, runtimes[i].How, runtimes[i].Digest})
	}
	if job.push != nil {
		out.Ref = job.push.WithDigest(set.Root.Digest).String()
	}
	if k != nil {
		out.KeyID = k.KeyID()
	}
	if !out.DryRun {
		if k != nil {
			if err := signImage(ctx, set, k, s.Name); err != nil {
				return err
			}
		}
		if err := c.writeImage(ctx, set, job, s.Desc.Digest); err != nil {
			return err
		}
	} else if job.file != "" {
		if err := checkNew(job.file, c.String("out"), c.Bool("force")); err != nil {
			return err
		}
	}
	return c.printImage(out, k)
}

// functionZip writes what a function of AWS Lambda runs from a zip: what waybill deploy uploads for the kind lambda-zip.
func (c *Call) functionZip(st *image.Staged, r image.Runtime, job *imageJob, s *subject, dir string) error {
	if err := image.Folder(st, r, dir); err != nil {
		return err
	}
	raw, err := awslambda.Zip(dir)
	if errors.Is(err, deploy.ErrTooLarge) {
		return diag.Wrap(diag.Unsupported, err, "image").Hint("waybill image %s --variant lambda --push HOST/REPO --key publisher.key   (images may have 10 GB)", c.Args[0])
	}
	if err != nil {
		return diag.Wrap(diag.Failure, err, "image")
	}
	d := artifact.DigestOf(raw)
	out := imageJSON{
		Schema: schemaBase + "image/v1", Ref: c.String("out"), DryRun: c.Bool("dry-run"), Digest: d, MediaType: "application/zip", Artifact: s.Desc.Digest, Model: s.Name, Version: s.Version,
		Variant: job.variant, Trust: st.TrustDigest, AsOf: st.AsOf, Images: []imagePlatformJSON{{r.Platform.String(), d, int64(len(raw)), r.Size, st.Size, r.How, r.Digest}},
	}
	if out.DryRun {
		if err := checkNew(job.file, c.String("out"), c.Bool("force")); err != nil {
			return err
		}
	} else if err := fsx.WriteFileAtomic(fsx.OS{}, job.file, raw, 0o644); err != nil {
		return diag.Wrap(diag.Failure, err, "write %s", c.String("out"))
	}
	return c.printImage(out, nil)
}

func (c *Call) printImage(out imageJSON, k author) error {
	if c.UI.JSON {
		return c.UI.PrintJSON(out)
	}
	if out.DryRun {
		c.UI.Say("dry run: nothing was written")
	}
	c.UI.Field("model", "%s %s", out.Model, out.Version)
	c.UI.Field("proven", "%s, and again at each start as of %s", out.Artifact, out.AsOf.UTC().Format(time.RFC3339))
	for _, x := range out.Images {
		c.UI.Field("image", "%s  %s  %s  waybill-serve %s", x.Platform, ui.Bytes(x.Bytes), x.Digest, x.Runtime)
	}
	if k != nil {
		c.UI.Field("signed by", "%s", signedBy(k))
	}
	c.UI.Data("%s", out.Ref)
	return nil
}

// imageJob reads the flags.
func (c *Call) imageJob() (*imageJob, error) {
	j := &imageJob{variant: image.Variant(c.String("variant")), name: c.String("name")}
	switch j.variant {
	case image.Plain, image.Lambda, image.SageMaker, image.Vertex, image.Modelcar:
	default:
		return nil, diag.New(diag.Usage, "image: --variant %s is none of plain, lambda, sagemaker, vertex, modelcar", j.variant)
	}
	names := strings.Split(cmp.Or(strings.Join(c.Strings("platform"), ","), "linux/amd64"), ",")
	for _, n := range names {
		p, err := image.ParsePlatform(n)
		if err != nil {
			return nil, err
		}
		j.platforms = append(j.platforms, p)
	}
	if j.variant == image.Lambda && len(j.platforms) > 1 {
		return nil, diag.New(diag.Usage, "image: AWS Lambda takes images of one platform only").Hint("waybill image %s --variant lambda --platform linux/arm64 ...", c.Args[0])
	}
	if st, err := os.Stat(c.Abs(c.String("runtime"))); c.String("runtime") != "" && err == nil && !st.IsDir() && len(j.platforms) > 1 {
		return nil, diag.New(diag.Usage, "image: one --runtime file is for one platform").Hint("give the folder of a release: --runtime dist")
	}
	switch out := c.String("out"); {
	case out == "" && c.String("push") == "":
		return nil, diag.New(diag.Usage, "image: say where it goes: --push HOST/REPO, or --out FILE.tar").Hint("waybill image %s --out image.tar", c.Args[0])
	case strings.HasSuffix(out, ".zip") && (j.variant != image.Lambda || c.String("push") != "" || c.String("key") != "" || c.Bool("keyless")):
		return nil, diag.New(diag.Usage, "image: a zip is for AWS Lambda alone, and nothing is pushed or signed with it").Hint("waybill image %s --variant lambda --out function.zip", c.Args[0])
	case strings.HasSuffix(out, ".tar"), strings.HasSuffix(out, ".zip"):
		j.file, j.zip = c.Abs(out), strings.HasSuffix(out, ".zip")
		if !c.Bool("dry-run") {
			if err := checkNew(j.file, out, c.Bool("force")); err != nil {
				return nil, err
			}
		}
	case out != "":
		j.dir = out
	}
	if p := c.String("push"); p != "" {
		ref, err := registry.ParseRef(p)
		if err != nil {
			return nil, err
		}
		if ref.Kind != registry.KindRemote || ref.Digest != "" {
			return nil, diag.New(diag.Usage, "image: --push %s is no HOST/REPO[:TAG] of a registry", p).Hint("waybill image %s --push reg.example/images/churn:1.0", c.Args[0])
		}
		j.push = &ref
	}
	if _, tag, ok := strings.Cut(j.name, ":"); j.name != "" && (!ok || !registry.ValidTag(tag) || !registry.ValidRepo(strings.TrimSuffix(j.name, ":"+tag))) {
		return nil, diag.New(diag.Usage, "image: --name %s is no NAME:TAG", j.name)
	}
	for _, n := range c.Strings("evidence") {
		t, ok := evidence.TypeByName(n)
		if !ok {
			return nil, diag.New(diag.Usage, "image: --evidence %s is no type of statement", n).Hint("waybill attest --help")
		}
		j.evidence = append(j.evidence, t)
	}
	j.options = image.Options{Variant: j.variant, User: c.String("user"), Labels: map[string]string{}}
	if u := j.options.User; u != "" {
		for _, n := range strings.SplitN(u, ":", 2) {
			if _, err := strconv.ParseUint(n, 10, 32); err != nil {
				return nil, diag.New(diag.Usage, "image: --user %s is no UID:GID in numbers; an image has no list of names", u)
			}
		}
	}
	for _, l := range c.Strings("label") {
		k, v, ok := strings.Cut(l, "=")
		if !ok || k == "" || strings.HasPrefix(k, "dev.waybill.") {
			return nil, diag.New(diag.Usage, "image: --label %s is no NAME=VALUE, or one of Waybill's own", l)
		}
		j.options.Labels[k] = v
	}
	if e := c.Env.Getenv("SOURCE_DATE_EPOCH"); e != "" {
		n, err := strconv.ParseInt(e, 10, 64)
		if err != nil || n < 0 || n > 253402300799 { // the last second of the year 9999
			return nil, diag.New(diag.Usage, "SOURCE_DATE_EPOCH is %q, not a number of seconds since 1970", e)
		}
		j.options.Created = time.Unix(n, 0).UTC()
	}
	return j, nil
}

func runtimeDigestFlag() ucli.Flag {
	return &ucli.StringSliceFlag{Name: "runtime-digest", Usage: "take a waybill-serve with `DIGEST` only; may be repeated, once a platform", EnvVars: []string{"WAYBILL_SERVE_DIGEST"}}
}

// runtimes finds waybill-serve for each platform.
func (c *Call) runtimes(ctx context.Context, ps []image.Platform, work string) ([]image.Runtime, error) {
	find := image.Find{Source: c.Env.Dir, Work: work}
	for _, s := range c.Strings("runtime-digest") {
		d, err := artifact.ParseDigest(s)
		if err != nil {
			return nil, diag.Wrap(diag.Usage, err, "--runtime-digest %s", s)
		}
		find.Digests = append(find.Digests, d)
	}
	if g := c.String("runtime"); g != "" {
		find.Given = c.Abs(g)
	} else if self, err := os.Executable(); err == nil {
		if self, err = filepath.EvalSymlinks(self); err == nil {
			find.Beside = filepath.Dir(self)
		}
	}
	var out []image.Runtime
	for _, p := range ps {
		r, err := find.Runtime(ctx, p)
		if err != nil {
			return nil, err
		}
		out = append(out, r)
	}
	return out, nil
}

// signImage has k sign each image, the index, and the bills of materials.
func signImage(ctx context.Context, set *image.Set, k author, model string) error {
	attach := func(d artifact.Descriptor, predicateType string, predicate any) error {
		st, err := evidence.NewStatement(predicateType, model, d.Digest, predicate)
		if err != nil {
			return diag.Wrap(diag.Failure, err, "make the statement")
		}
		raw, err := k.Sign(ctx, st)
		if err != nil {
			return err
		}
		return set.Attach(d, raw, predicateType)
	}
	for _, d := range set.Subjects() {
		if err := attach(d, evidence.TypeRelease, struct{}{}); err != nil {
			return err
		}
	}
	for _, x := range set.Images {
		bom, err := set.SBOM(x.Descriptor.Digest)
		if err != nil {
			return diag.Wrap(diag.Failure, err, "sign the bill of materials")
		}
		if err := attach(x.Descriptor, evidence.TypeCycloneDX, json.RawMessage(bom)); err != nil {
			return err
		}
	}
	return nil
}

// writeImage writes it where the flags say: files first, the registry last.
func (c *Call) writeImage(ctx context.Context, set *image.Set, j *imageJob, of artifact.Digest) error {
	_, tag, _ := strings.Cut(j.name, ":")
	if j.file != "" {
		if err := writeImageTar(ctx, set, j.file, c.String("out"), j.name); err != nil {
			return err
		}
	}
	if j.dir != "" {
		if err := c.pushImage(ctx, set, registry.Ref{Kind: registry.KindLayout, Path: j.dir}, tag); err != nil {
			return err
		}
	}
	if j.push != nil {
		return c.pushImage(ctx, set, *j.push, j.push.Tag, image.TagOf(of, j.variant)) // where deploy looks
	}
	return nil
}

func (c *Call) pushImage(ctx context.Context, set *image.Set, ref registry.Ref, tags ...string) error {
	p, err := c.openPlace(ctx, ref, true)
	if err != nil {
		return err
	}
	defer p.Close()
	return set.Push(ctx, p, tags...)
}

func writeImageTar(ctx context.Context, set *image.Set, file, shown, name string) error {
	f, err := fsx.CreateTemp(fsx.OS{}, filepath.Dir(file), filepath.Base(file), 0o644)
	if err != nil {
		return diag.Wrap(diag.Failure, err, "write %s", shown)
	}
	w := bufio.NewWriterSize(f, 1<<20)
	err = set.WriteTar(ctx, w, name)
	if err == nil {
		err = w.Flush()
	}
	if err == nil {
		err = f.Sync()
	}
	err = errors.Join(err, f.Close())
	if err == nil {
		err = fsx.OS{}.Rename(f.Name(), file)
	}
	if err != nil {
		_ = os.Remove(f.Name())
		return diag.Wrap(diag.Failure, err, "write %s", shown)
	}
	return fsx.OS{}.SyncDir(filepath.Dir(file))
}
