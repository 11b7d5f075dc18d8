package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	ucli "github.com/urfave/cli/v2"

	"github.com/waybill-ml/waybill/internal/diag"
	"github.com/waybill-ml/waybill/internal/fsx"
	"github.com/waybill-ml/waybill/internal/strictjson"
	"github.com/waybill-ml/waybill/internal/ui"
	"github.com/waybill-ml/waybill/oci/artifact"
	"github.com/waybill-ml/waybill/oci/fleet"
	"github.com/waybill-ml/waybill/oci/verify"
)

// registerFile is what the register of devices is called.
const registerFile = "devices.jsonl"

func channelProvisionCommand() Command {
	return Command{
		Name: "provision", Summary: "enrol devices and keep the register of them",
		Args: "REQUESTS", Min: 1, Max: 1,
		Long: `REQUESTS is a folder of request.json files at any depth, a file with one after the other, or - for stdin. Each
is checked: its id is the hash of its key, and the key signed it. With --template each device gets DIR/ID.json,
which is the template with the device's class, labels and credential. The register, ` + registerFile + `, tells from
then on whose status reports are genuine. Nothing is written while one request is wrong, unless --skip-bad;
running it again writes only what changed. Without --template the devices are only registered: for those that
were enrolled from one shared provisioning file in their image.`,
		Examples: []string{
			"waybill channel provision requests/ --template provisioning.json --labels devices.csv --out fleet",
			"cat requests.jsonl | waybill channel provision - --class edge-s --out fleet    # the register only",
		},
		Flags: []ucli.Flag{
			&ucli.StringFlag{Name: "out", Required: true, Usage: "`DIR` for the provisioning files and the register"},
			&ucli.StringFlag{Name: "template", Usage: "provisioning `FILE` with everything that devices share"},
			&ucli.StringFlag{Name: "register", Usage: "`FILE` of the register (default: " + registerFile + " in --out)"},
			&ucli.StringFlag{Name: "labels", Usage: "`FILE` (CSV): first column device or the label that tells them apart; others: labels, class"},
			&ucli.StringFlag{Name: "credentials", Usage: "`FILE` (CSV): first column likewise; others: username and password, or token; registry"},
			&ucli.StringSliceFlag{Name: "class", Usage: "accept devices of this `CLASS` only; may be given again"},
			&ucli.BoolFlag{Name: "partial", Usage: "the tables may name devices that have not asked, and leave out some that have"},
			&ucli.BoolFlag{Name: "skip-bad", Usage: "enrol the others when a request is wrong; exit code 1"},
			dryRunFlag(),
		},
		Exits: []diag.Code{diag.Verification, diag.NotFound},
		See:   []string{"channel status", "keys generate"},
		Run:   runChannelProvision,
	}
}

type provisionJSON struct {
	Schema   string          `json:"schema"`
	Register string          `json:"register"`
	Devices  int             `json:"devices"` // of the register, after it
	Enrolled int             `json:"enrolled"`
	Written  int             `json:"written"`
	Bytes    int64           `json:"bytes"`
	Bad      []fleet.Problem `json:"bad"`
}

func runChannelProvision(ctx context.Context, c *Call) error {
	var tmpl *provisionTemplate
	if c.String("template") != "" {
		var err error
		if tmpl, err = c.provisionTemplate(c.String("template")); err != nil {
			return err
		}
	}
	rules := fleet.Rules{Classes: c.Strings("class"), Partial: c.Bool("partial")}
	if len(rules.Classes) == 0 {
		rules.Classes = nil
	}
	var err error
	if rules.Labels, err = c.deviceTable("labels"); err != nil {
		return err
	}
	if rules.Secrets, err = c.deviceTable("credentials"); err != nil {
		return err
	}
	if rules.Secrets != nil {
		if tmpl == nil {
			return diag.New(diag.Usage, "--credentials needs --template: they go into the provisioning files")
		}
		if err := rules.Secrets.Only("registry", "username", "password", "token"); err != nil {
			return diag.Wrap(diag.Usage, err, "read %s", c.String("credentials"))
		}
		rules.Registry = tmpl.registry
	}
	out := c.Abs(c.String("out"))
	register := c.String("register")
	if register == "" {
		register = filepath.Join(c.String("out"), registerFile)
	}
	asked, err := c.requests(c.Args[0], out)
	if err != nil {
		return err
	}
	if !c.Bool("dry-run") {
		if err := os.MkdirAll(out, 0o700); err != nil {
			return diag.Wrap(diag.Failure, err, "make %s", c.String("out"))
		}
		root, err := os.OpenRoot(out)
		if err != nil {
			return diag.Wrap(diag.Failure, err, "open %s", c.String("out"))
		}
		defer root.Close()
		unlock, err := fsx.LockRemovable(ctx, root, ".provision.lock", func() { c.UI.Say("another provision works in %s", c.String("out")) })
		if err != nil {
			return diag.Wrap(diag.Failure, err, "provision")
		}
		defer func() { _ = unlock(true) }()
	}
	known := fleet.Register{}
	switch raw, err := c.readFile(register, fleet.MaxRegister); {
	case err == nil:
		if known, err = fleet.ParseRegister(raw); err != nil {
			return diag.Wrap(diag.Usage, err, "read the register %s", register)
		}
	case diag.CodeOf(err) != diag.NotFound:
		return err
	}
	enrolled, bad := fleet.Enroll(asked, known, rules)
	res := provisionJSON{Schema: schemaBase + "channel-provision/v1", Register: register, Enrolled: len(enrolled), Bad: append([]fleet.Problem{}, bad...)}
	for i, b := range bad {
		if i == 20 {
			c.UI.Warn("and %d more", len(bad)-i)
			break
		}
		c.UI.Warn("%s: %s", b.Where, b.Why)
	}
	wrong := diag.New(diag.Verification, "%s cannot be enrolled", ui.Plural(len(bad), "request"))
	if len(bad) > 0 && !c.Bool("skip-bad") {
		return wrong.Line("nothing was written").Hint("waybill channel provision %s --out %s --skip-bad", c.Args[0], c.String("out"))
	}
	if len(enrolled) == 0 && len(bad) == 0 {
		return diag.New(diag.NotFound, "no request in %s", c.Args[0]).Hint("waybill-edge enroll --out DIR --class CLASS    # writes DIR/request.json")
	}
	if tmpl != nil {
		if err := tmpl.writeAll(ctx, c, out, enrolled, &res); err != nil {
			return err
		}
	}
	for _, e := range enrolled {
		known[e.ID] = e.Device
	}
	res.Devices = len(known)
	// The register comes last: who is in it has been given everything.
	b, err := known.Encode()
	if err != nil {
		return diag.Wrap(diag.Failure, err, "write the register")
	}
	if n, err := c.putFile(c.Abs(register), b, 0o644); err != nil {
		return err
	} else if n > 0 {
		res.Written, res.Bytes = res.Written+1, res.Bytes+n
	}
	if c.UI.JSON {
		if err := c.UI.PrintJSON(res); err != nil {
			return err
		}
	} else {
		c.UI.Field("enrolled", "%s; the register has %s", ui.Plural(res.Enrolled, "device"), ui.Count(int64(res.Devices)))
		c.UI.Field("written", "%s, %s", ui.Plural(res.Written, "file"), ui.Bytes(res.Bytes))
		c.UI.Data("%s", register)
	}
	if len(bad) > 0 {
		wrong.Code = diag.Failure
		return wrong
	}
	return nil
}

// deviceTable reads the CSV file that a flag names; nil when there is none.
func (c *Call) deviceTable(flag string) (*fleet.Table, error) {
	name := c.String(flag)
	if name == "" {
		return nil, nil
	}
	raw, err := c.readFile(name, fleet.MaxTable)
	if err != nil {
		return nil, err
	}
	t, err := fleet.ParseTable(raw)
	if err != nil {
		return nil, diag.Wrap(diag.Usage, err, "read %s", name)
	}
	return t, nil
}

// requests reads every request in a folder, a file or stdin. What waybill itself wrote to out is none.
func (c *Call) requests(name, out string) ([]fleet.Asked, error) {
	const max = 1 << 30
	if name == "-" {
		raw, err := io.ReadAll(io.LimitReader(c.Env.Stdin, max+1))
		if err != nil || len(raw) > max {
			return nil, diag.Wrap(diag.Usage, err, "read requests from stdin (at most %s)", ui.Bytes(max))
		}
		return split("stdin", raw), nil
	}
	info, err := os.Stat(c.Abs(name))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, diag.New(diag.NotFound, "%s does not exist", name)
	}
	if err != nil {
		return nil, diag.Wrap(diag.Failure, err, "read %s", name)
	}
	if !info.IsDir() {
		raw, err := c.readFile(name, max)
		if err != nil {
			return nil, err
		}
		return split(name, raw), nil
	}
	var asked []fleet.Asked
	err = filepath.WalkDir(c.Abs(name), func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if e.IsDir() && path == out {
			return fs.SkipDir
		}
		if !e.Type().IsRegular() || filepath.Ext(path) != ".json" || fsx.IsTemp(e.Name()) {
			return nil
		}
		rel, err := filepath.Rel(c.Abs(name), path)
		if err != nil {
			return err
		}
		raw, err := fsx.ReadFile(fsx.OS{}, path, fleet.MaxRequest)
		if err != nil {
			return err
		}
		asked = append(asked, fleet.Asked{Where: rel, Raw: raw})
		return nil
	})
	if err != nil {
		return nil, diag.Wrap(diag.Failure, err, "read the requests in %s", name)
	}
	return asked, nil
}

// split makes one document of each JSON value; of each line, when there is one that is none: then only that one is bad.
func split(name string, raw []byte) (out []fleet.Asked) {
	d := json.NewDecoder(bytes.NewReader(raw))
	for n := 1; ; n++ {
		var one json.RawMessage
		err := d.Decode(&one)
		if errors.Is(err, io.EOF) {
			return out
		}
		if err != nil {
			break
		}
		out = append(out, fleet.Asked{Where: fmt.Sprintf("%s, number %d", name, n), Raw: one})
	}
	out = nil
	n := 0
	for line := range bytes.Lines(raw) {
		n++
		if line = bytes.TrimSpace(line); len(line) > 0 {
			out = append(out, fleet.Asked{Where: fmt.Sprintf("%s, line %d", name, n), Raw: line})
		}
	}
	return out
}

// putFile writes a file that has other content now, and tells how many bytes it wrote; none on a dry run.
func (c *Call) putFile(path string, b []byte, perm fs.FileMode) (int64, error) {
	if was, err := fsx.ReadFile(fsx.OS{}, path, int64(len(b))); err == nil && bytes.Equal(was, b) {
		return 0, nil
	}
	if !c.Bool("dry-run") {
		if err := fsx.WriteFileAtomic(fsx.OS{}, path, b, perm); err != nil {
			return 0, diag.Wrap(diag.Failure, err, "provision")
		}
	}
	return int64(len(b)), nil
}

// provisionTemplate is a provisioning file that devices share.
type provisionTemplate struct {
	fields   map[string]json.RawMessage
	labels   map[string]string
	class    string
	registry string // of its channels, when it is one
	trust    string // file beside the template that goes along; "": the document is inside
	trustRaw []byte
}

// provisionTemplate reads a template and checks what a device would check first: the trust document against version and
// digest. The other keys are the device's business (waybill-edge enroll reads them strictly).
func (c *Call) provisionTemplate(name string) (*provisionTemplate, error) {
	raw, err := c.readFile(name, 4<<20)
	if err != nil {
		return nil, err
	}
	t := &provisionTemplate{}
	var known struct {
		Schema string            `json:"schema"`
		Device string            `json:"device,omitempty"`
		Class  string            `json:"class,omitempty"`
		Labels map[string]string `json:"labels,omitempty"`
		Trust  struct {
			File    string          `json:"file,omitempty"`
			Bundle  artifact.Base64 `json:"bundle,omitempty"`
			Version int             `json:"version,omitempty"`
			Digest  artifact.Digest `json:"digest,omitempty"`
		} `json:"trust,omitzero"`
		Channels []struct {
			Registry string `json:"registry,omitempty"`
		} `json:"channels,omitempty"`
	}
	fail := func(err error) error { return diag.Wrap(diag.Usage, err, "read %s", name) }
	if err := strictjson.DecodeOpen(raw, &known); err != nil {
		return nil, fail(err)
	}
	if err := json.Unmarshal(raw, &t.fields); err != nil {
		return nil, fail(err)
	}
	const schema = "waybill.dev/edge-provisioning/v1"
	switch {
	case known.Schema != schema:
		return nil, diag.New(diag.Usage, "read %s: schema is %q, this version reads %q", name, known.Schema, schema)
	case known.Device != "":
		return nil, diag.New(diag.Usage, "read %s: it is for device %.12s, no template", name, known.Device)
	case len(known.Channels) == 0:
		return nil, diag.New(diag.Usage, "read %s: channels: none is given", name)
	case (known.Trust.File == "") == (len(known.Trust.Bundle) == 0):
		return nil, diag.New(diag.Usage, "read %s: trust needs either file or bundle", name)
	}
	t.class, t.labels, t.registry = known.Class, known.Labels, known.Channels[0].Registry
	doc := []byte(known.Trust.Bundle)
	if t.trust = known.Trust.File; t.trust != "" {
		if filepath.Base(t.trust) != t.trust {
			return nil, diag.New(diag.Usage, "read %s: trust.file %q must lie beside it, so that it can go along", name, t.trust)
		}
		if doc, err = c.readFile(filepath.Join(filepath.Dir(name), t.trust), artifact.MaxBundle); err != nil {
			return nil, err
		}
		t.trustRaw = doc
	}
	if _, err := verify.TrustPinned(doc, known.Trust.Version, known.Trust.Digest); err != nil {
		return nil, fmt.Errorf("trust document in %s: %w", name, err)
	}
	return t, nil
}

// of makes the provisioning file of one device.
func (t *provisionTemplate) of(e fleet.Enrolled) ([]byte, error) {
	out := map[string]any{}
	for k, v := range t.fields {
		out[k] = v
	}
	labels := map[string]string{}
	for k, v := range t.labels {
		labels[k] = v
	}
	for k, v := range e.Given {
		labels[k] = v
	}
	out["device"], out["class"] = e.ID, e.Class
	if len(labels) > 0 {
		out["labels"] = labels
	}
	if e.Credential != nil {
		var shared []fleet.Credential
		if raw, ok := t.fields["credentials"]; ok {
			if err := strictjson.Decode(raw, &shared); err != nil {
				return nil, fmt.Errorf("credentials of the template: %w", err)
			}
		}
		all := fleet.Credentials{Credentials: shared}
		all.Merge([]fleet.Credential{*e.Credential})
		out["credentials"] = all.Credentials
	}
	return artifact.Canonical(out)
}

// writeAll writes the files of all devices, each at once whole. The ids are hashes, so names cannot lead elsewhere.
func (t *provisionTemplate) writeAll(ctx context.Context, c *Call, dir string, es []fleet.Enrolled, res *provisionJSON) error {
	if t.trust != "" {
		n, err := c.putFile(filepath.Join(dir, t.trust), t.trustRaw, 0o644)
		if err != nil {
			return err
		}
		if n > 0 {
			res.Written, res.Bytes = res.Written+1, res.Bytes+n
		}
	}
	var (
		wg    sync.WaitGroup
		mu    sync.Mutex
		first error
		todo  = make(chan fleet.Enrolled)
	)
	for range 16 { // a disk that syncs many files together is many times faster
		wg.Go(func() {
			for e := range todo {
				b, err := t.of(e)
				var n int64
				if err == nil {
					n, err = c.putFile(filepath.Join(dir, e.ID+".json"), b, 0o600)
				}
				mu.Lock()
				if err != nil && first == nil {
					first = err
				}
				if n > 0 {
					res.Written, res.Bytes = res.Written+1, res.Bytes+n
				}
				mu.Unlock()
			}
		})
	}
	for _, e := range es {
		mu.Lock()
		stop := first != nil || ctx.Err() != nil
		mu.Unlock()
		if stop {
			break
		}
		todo <- e
	}
	close(todo)
	wg.Wait()
	if first == nil {
		first = ctx.Err()
	}
	return first
}

// classesOf is for messages.
func classesOf(ds fleet.Register) string {
	var out []string
	for _, d := range ds {
		if !slices.Contains(out, d.Class) {
			out = append(out, d.Class)
		}
	}
	slices.Sort(out)
	return strings.Join(out, ", ")
}
