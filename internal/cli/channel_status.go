package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	ucli "github.com/urfave/cli/v2"
	"golang.org/x/sync/errgroup"

	"github.com/waybill-ml/waybill/internal/diag"
	"github.com/waybill-ml/waybill/internal/fsx"
	"github.com/waybill-ml/waybill/internal/strictjson"
	"github.com/waybill-ml/waybill/internal/ui"
	"github.com/waybill-ml/waybill/oci/artifact"
	"github.com/waybill-ml/waybill/oci/fleet"
	"github.com/waybill-ml/waybill/oci/registry"
)

func channelStatusCommand() Command {
	return Command{
		Name: "status", Summary: "tell what devices report: who runs what, who went back and why",
		Args: "CHANNEL [REPO]", Min: 1, Max: 2,
		Long: `Reads signed reports (status/v1) from --reports and, when REPO is given, from that repository. A report counts
when a device of the register signed it about itself; the newest of each device stands for it. With --seen what
was found is remembered, so that an older report which somebody plays back later is told from news.
A report that does not count is shown and changes neither the numbers nor the exit code: anybody can leave one.`,
		Examples: []string{
			"waybill channel status prod reg.example/ml/churn --devices fleet/devices.jsonl",
			"waybill channel status prod --reports /srv/reports --devices fleet/devices.jsonl --seen seen.jsonl --output json",
		},
		Flags: placeFlags(
			&ucli.StringFlag{Name: "devices", Value: registerFile, Usage: "`FILE` of the register (waybill channel provision)"},
			&ucli.StringSliceFlag{Name: "reports", Usage: "`PATH` of a folder of reports, or of a file with one a line; may be given again"},
			&ucli.StringFlag{Name: "seen", Usage: "`FILE` that remembers the newest report of each device; made when missing"},
			&ucli.DurationFlag{Name: "silent", Value: 48 * time.Hour, Usage: "a device that said nothing for so long is silent"},
			&ucli.StringFlag{Name: "class", Usage: "devices of this `CLASS` only"},
		),
		Exits: []diag.Code{diag.Registry, diag.NotFound},
		See:   []string{"channel provision", "channel show"},
		Run:   runChannelStatus,
	}
}

type channelStatusJSON struct {
	Schema string    `json:"schema"`
	At     time.Time `json:"at"`
	*fleet.Picture
	Reports int             `json:"reports"` // that were looked at
	Older   int             `json:"older"`   // genuine ones that a newer one stands in front of
	Bad     []fleet.Problem `json:"bad"`     // that do not count; bounded
	BadMore int             `json:"badMore"`
}

// maxBad bounds the list of reports that do not count.
const maxBad = 100

func runChannelStatus(ctx context.Context, c *Call) error {
	name := c.Args[0]
	raw, err := c.readFile(c.String("devices"), fleet.MaxRegister)
	if err != nil {
		var e *diag.Error
		if errors.As(err, &e) {
			e.Hint("waybill channel provision REQUESTS --out DIR")
		}
		return err
	}
	reg, err := fleet.ParseRegister(raw)
	if err != nil {
		return diag.Wrap(diag.Usage, err, "read the register %s", c.String("devices"))
	}
	if class := c.String("class"); class != "" && !strings.Contains(", "+classesOf(reg)+",", ", "+class+",") {
		return diag.New(diag.Usage, "no device of the register has class %q; there are %s", class, classesOf(reg))
	}
	if len(c.Strings("reports")) == 0 && c.Arg(1) == "" {
		return diag.New(diag.Usage, "nowhere to read reports from").Hint("waybill channel status %s REPO", name)
	}
	seen, err := c.readSeen()
	if err != nil {
		return err
	}
	now := c.Env.Now()
	t := fleet.NewTally(reg, seen, now)
	out := channelStatusJSON{Schema: schemaBase + "channel-status/v1", At: now.UTC(), Bad: []fleet.Problem{}}
	add := func(where string, raw []byte) {
		out.Reports++
		_, err := t.Add(raw)
		switch {
		case errors.Is(err, fleet.ErrOlder):
			out.Older++
		case err != nil && len(out.Bad) < maxBad:
			out.Bad = append(out.Bad, fleet.Problem{Where: where, Why: err.Error()})
		case err != nil:
			out.BadMore++
		}
	}
	for _, p := range c.Strings("reports") {
		if err := c.eachReport(p, add); err != nil {
			return err
		}
	}
	if c.Arg(1) != "" {
		if err := c.eachRemoteReport(ctx, name, c.Args[1], add); err != nil {
			return err
		}
	}
	out.Picture = t.Picture(name, c.String("class"), c.Duration("silent"))
	if err := c.writeSeen(t.Lines()); err != nil {
		return err
	}
	if c.UI.JSON {
		return c.UI.PrintJSON(out)
	}
	c.printChannelStatus(out)
	return nil
}

func (c *Call) printChannelStatus(s channelStatusJSON) {
	rows := [][]string{{"devices", "running", "version", "state"}}
	for _, r := range s.Running {
		running := "nothing"
		if r.Digest != "" {
			running = r.Digest.Short()
		}
		rows = append(rows, []string{ui.Count(int64(r.Devices)), running, r.Version, r.State})
	}
	ui.Table(c.UI.Out, true, rows)
	for _, w := range s.Reasons {
		what := w.Kind
		if w.Digest != "" {
			what += " from " + w.Digest.Short()
		}
		c.UI.Field(what, "%s, for example %s: %s", ui.Plural(w.Devices, "device"), w.Example[:12], inLine(w.Reason))
	}
	c.UI.Field("channel", "%s: %s of %s reported", s.Channel, ui.Count(int64(s.Reported)), ui.Plural(s.Devices, "device"))
	if s.Silent > 0 {
		text := fmt.Sprintf("%s, %s of which never reported", ui.Plural(s.Silent, "device"), ui.Count(int64(s.Never)))
		if q := s.Quiet[len(s.Quiet)-1]; !q.Since.IsZero() {
			text += fmt.Sprintf("; %s since %s", q.Device[:12], q.Since.Format("2006-01-02 15:04"))
		}
		c.UI.Field("silent", "%s", text)
	}
	for _, x := range []struct {
		n    int
		what string
	}{{s.Stale, "have a record that expired"}, {s.Pinned, "were rolled back by hand"}, {s.ClockBad, "have a clock behind the last signed time"}} {
		if x.n > 0 {
			c.UI.Field("note", "%s %s", ui.Plural(x.n, "device"), x.what)
		}
	}
	if s.Requests > 0 {
		c.UI.Field("requests", "%s, %s failed, on what runs now", ui.Count(s.Requests), ui.Count(s.Errors))
	}
	for _, a := range s.Alarms {
		c.UI.Warn("device %s: %s", a.Device[:12], a.What)
	}
	for i, b := range s.Bad {
		if i == 10 {
			c.UI.Warn("and %s more do not count", ui.Count(int64(len(s.Bad)-i+s.BadMore)))
			break
		}
		c.UI.Warn("%s does not count: %s", b.Where, b.Why)
	}
}

func inLine(s string) string { return strings.Join(strings.Fields(s), " ") }

// eachReport reads the reports of a folder, at any depth, or of a file.
func (c *Call) eachReport(name string, add func(where string, raw []byte)) error {
	info, err := os.Stat(c.Abs(name))
	if errors.Is(err, fs.ErrNotExist) {
		return diag.New(diag.NotFound, "%s does not exist", name)
	}
	if err != nil {
		return diag.Wrap(diag.Failure, err, "read %s", name)
	}
	if !info.IsDir() {
		raw, err := c.readFile(name, 4<<30)
		if err != nil {
			return err
		}
		for _, a := range split(name, raw) {
			add(a.Where, a.Raw)
		}
		return nil
	}
	err = filepath.WalkDir(c.Abs(name), func(path string, e fs.DirEntry, err error) error {
		if err != nil || !e.Type().IsRegular() || filepath.Ext(path) != ".json" || fsx.IsTemp(e.Name()) {
			return err
		}
		rel, err := filepath.Rel(c.Abs(name), path)
		if err != nil {
			return err
		}
		raw, err := fsx.ReadFile(fsx.OS{}, path, artifact.MaxBundle)
		if err != nil {
			add(rel, nil) // a stranger may leave there what cannot be read
			return nil
		}
		add(rel, bytes.TrimSpace(raw))
		return nil
	})
	if err != nil {
		return diag.Wrap(diag.Failure, err, "read the reports in %s", name)
	}
	return nil
}

// eachRemoteReport reads what the devices left under their tags.
func (c *Call) eachRemoteReport(ctx context.Context, channel, repo string, add func(where string, raw []byte)) error {
	_, p, err := c.repository(ctx, repo)
	if err != nil {
		return err
	}
	defer p.Close()
	tags, err := p.Tags(ctx)
	if err != nil {
		return err
	}
	tags = slices.DeleteFunc(tags, func(tag string) bool { return !fleet.IsStatusTag(tag, channel) })
	return readReports(ctx, p, tags, statusReaders, add)
}

// readReports reads what lies under tags, as many at a time as there are readers, and hands it on in their order.
func readReports(ctx context.Context, p registry.Place, tags []string, readers int, add func(where string, raw []byte)) error {
	for batch := range slices.Chunk(tags, statusBatch) { // reports are bounded, and so is what is held of them
		found := make([][]byte, len(batch))
		g, gctx := errgroup.WithContext(ctx)
		g.SetLimit(readers)
		for i, tag := range batch {
			g.Go(func() (err error) {
				found[i], err = statusUnder(gctx, p, tag)
				return err
			})
		}
		if err := g.Wait(); err != nil {
			return err
		}
		for i, tag := range batch {
			add(tag, found[i])
		}
	}
	return nil
}

// How many reports are read at once, and how many are held.
const (
	statusReaders = 8
	statusBatch   = 64
)

// statusUnder reads what a device, or a stranger, left under a tag; nil for what is no report.
func statusUnder(ctx context.Context, p registry.Place, tag string) ([]byte, error) {
	raw, _, err := p.GetBounded(ctx, tag, artifact.MaxManifest)
	if err != nil {
		return nil, err
	}
	m, err := artifact.ParseManifest(raw)
	if err != nil || m.ArtifactType != artifact.MediaTypeBundle || len(m.Layers) != 1 {
		return nil, nil
	}
	b, err := registry.ReadBlob(ctx, p, m.Layers[0], artifact.MaxBundle)
	if diag.CodeOf(err) == diag.Verification {
		return nil, nil
	}
	return b, err
}

// readSeen reads what earlier looks found.
func (c *Call) readSeen() ([]fleet.Line, error) {
	name := c.String("seen")
	if name == "" {
		return nil, nil
	}
	raw, err := c.readFile(name, fleet.MaxRegister)
	if diag.CodeOf(err) == diag.NotFound {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var out []fleet.Line
	for _, a := range split(name, raw) {
		var l fleet.Line
		if err := strictjson.Decode(a.Raw, &l); err != nil {
			return nil, diag.Wrap(diag.Usage, err, "read %s", a.Where)
		}
		out = append(out, l)
	}
	return out, nil
}

func (c *Call) writeSeen(ls []fleet.Line) error {
	if c.String("seen") == "" {
		return nil
	}
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	for _, l := range ls {
		if err := e.Encode(l); err != nil {
			return diag.Wrap(diag.Failure, err, "write %s", c.String("seen"))
		}
	}
	if err := fsx.WriteFileAtomic(fsx.OS{}, c.Abs(c.String("seen")), b.Bytes(), 0o644); err != nil {
		return diag.Wrap(diag.Failure, err, "write %s", c.String("seen"))
	}
	return nil
}
