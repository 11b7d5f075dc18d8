package cli

import (
	"cmp"
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/waybill-ml/waybill/deploy"
	"github.com/waybill-ml/waybill/internal/diag"
	"github.com/waybill-ml/waybill/oci/artifact"
	"github.com/waybill-ml/waybill/oci/publish"
	"github.com/waybill-ml/waybill/oci/registry"
)

func statusCommand() Command {
	return Command{
		Name: "status", Group: Fleet, Summary: "show what runs on the targets and edge channel of an environment",
		Args: "[REF]", Max: 1,
		Long: `Asks each platform which digest it runs, by the labels that Waybill puts there, and whether somebody changed by hand what
Waybill set. With REF, the channel of the environment is read from its repository too, and when REF has a tag or a digest, what
runs is held against it. Nothing is changed.

Exit code 0 means that all of it could be read, 1 that some could not.`,
		Examples: []string{
			"waybill status --env prod",
			"waybill status reg.example/ml/churn --env prod                 # with the devices' channel",
			"waybill status reg.example/ml/churn:2.0 --env prod -o json     # and whether it is what should run",
		},
		Flags: siteFlags(),
		Exits: []diag.Code{diag.Verification, diag.Registry, diag.NotFound},
		See:   []string{"deploy", "rollback", "channel show", "channel status"},
		Run:   runStatus,
	}
}

type statusJSON struct {
	Schema      string             `json:"schema"`
	Environment string             `json:"environment"`
	Desired     artifact.Digest    `json:"desired"` // of REF; empty: not told
	Targets     []statusTargetJSON `json:"targets"`
	Channel     *statusChannelJSON `json:"channel,omitempty"`
}

type statusTargetJSON struct {
	Name     string            `json:"name"`
	Kind     string            `json:"kind"`
	Exists   bool              `json:"exists"`
	Revision string            `json:"revision"`
	State    string            `json:"state"`
	Settled  bool              `json:"settled"`
	Healthy  bool              `json:"healthy"`
	Reason   string            `json:"reason,omitempty"`
	URL      string            `json:"url,omitempty"`
	Shares   []statusShareJSON `json:"shares"`
	Kept     []statusShareJSON `json:"kept"`
	AsWanted *bool             `json:"asWanted"` // REF's digest has all of the traffic; null without REF
	Drift    []changeJSON      `json:"drift"`
	Error    string            `json:"error,omitempty"`
}

type statusShareJSON struct {
	Digest  artifact.Digest `json:"digest"` // empty: not put there by Waybill
	Version string          `json:"version,omitempty"`
	Image   string          `json:"image,omitempty"`
	ID      string          `json:"id"`
	Weight  int             `json:"weight"`
	Since   *time.Time      `json:"since,omitempty"`
}

type statusChannelJSON struct {
	Name     string          `json:"name"`
	Digest   artifact.Digest `json:"digest"`
	Version  string          `json:"version"`
	Seq      int64           `json:"seq"`
	Frozen   bool            `json:"frozen"`
	Expires  time.Time       `json:"expires"`
	Reach    float64         `json:"reach"` // percent of the devices
	AsWanted *bool           `json:"asWanted"`
}

func runStatus(ctx context.Context, c *Call) error {
	x, err := c.site(len(c.Args) > 0)
	if err != nil {
		return err
	}
	out := statusJSON{Schema: schemaBase + "status/v1", Environment: x.name, Targets: []statusTargetJSON{}}
	versions := func(artifact.Digest) string { return "" }
	if len(c.Args) > 0 {
		ref, p, err := c.repository(ctx, c.Args[0])
		if err != nil {
			return err
		}
		defer p.Close()
		if ref.Tag != "" || ref.Digest != "" {
			d, err := p.Resolve(ctx, ref.Target())
			if err != nil {
				return err
			}
			out.Desired = d.Digest
		}
		versions = versionsIn(ctx, p, ref)
		if out.Channel, err = x.channelStatus(ctx, p, out.Desired); err != nil {
			return err
		}
	}
	var failed error
	for i, p := range x.open(ctx, c) {
		j := statusTargetJSON{Name: p.Name, Kind: x.entries[i].Kind, Shares: []statusShareJSON{}, Kept: []statusShareJSON{}, Drift: []changeJSON{}}
		st, err := p.Target.Status(ctx)
		if err != nil {
			j.Error = err.Error()
			failed = cmp.Or(failed, x.failed(err, diag.Failure, "read target %s", p.Name))
			out.Targets = append(out.Targets, j)
			continue
		}
		j.Exists, j.Revision, j.State, j.Settled, j.Healthy, j.Reason, j.URL = st.Exists, st.Revision, st.State, st.Settled, st.Healthy, st.Reason, st.URL
		j.Shares, j.Kept = sharesJSON(st.Shares, versions), sharesJSON(st.Kept, versions)
		if out.Desired != "" {
			ok := len(st.Shares) == 1 && st.Running() == out.Desired
			j.AsWanted = &ok
		}
		if r, ok := again(st); ok {
			plan, err := p.Target.Plan(ctx, r)
			if err != nil {
				j.Error = err.Error()
				failed = cmp.Or(failed, x.failed(err, diag.Failure, "hold target %s against what was deployed", p.Name))
			} else {
				j.Drift = changesOf(plan.Drift)
			}
		}
		out.Targets = append(out.Targets, j)
	}
	if c.UI.JSON {
		if err := c.UI.PrintJSON(out); err != nil {
			return err
		}
	} else {
		printStatus(c, out)
	}
	return failed
}

// again is the release that runs, or the canary beside it: what deploying it once more would set right was changed by hand. It is not
// known for what was not put there as an image.
func again(st *deploy.Status) (deploy.Release, bool) {
	s := st.Canary()
	if s == nil && len(st.Shares) == 1 {
		s = &st.Shares[0]
	}
	if s == nil || s.Digest == "" || s.Image == "" {
		return deploy.Release{}, false
	}
	return deploy.Release{Digest: s.Digest, Image: s.Image, Weight: s.Weight}, true
}

// versionsIn reads the model versions of digests from their artifacts, as far as the repository has them.
func versionsIn(ctx context.Context, p *openPlace, ref registry.Ref) func(artifact.Digest) string {
	known := map[artifact.Digest]string{}
	return func(d artifact.Digest) string {
		v, ok := known[d]
		if !ok && d != "" {
			s := &subject{Ref: ref.WithDigest(d), Place: p}
			if err := s.read(ctx); err == nil {
				v = s.Version
			}
			known[d] = v
		}
		return v
	}
}

func (x *site) channelStatus(ctx context.Context, p *openPlace, desired artifact.Digest) (*statusChannelJSON, error) {
	name := cmp.Or(x.env.Channel, x.name)
	st, err := publish.Read(ctx, p, name, x.doc, x.now)
	if err != nil || st.Head == nil {
		return nil, err
	}
	r := st.Head.Record
	out := &statusChannelJSON{Name: name, Digest: r.Target.Digest, Version: r.Target.Version, Seq: r.Seq, Frozen: r.Freeze != nil, Expires: r.Expires, Reach: 100}
	if r.Rollout != nil {
		out.Reach = r.Rollout.Percent
	}
	if desired != "" {
		ok := r.Target.Digest == desired
		out.AsWanted = &ok
	}
	return out, nil
}

func sharesJSON(ss []deploy.Share, version func(artifact.Digest) string) []statusShareJSON {
	out := []statusShareJSON{}
	for _, s := range ss {
		j := statusShareJSON{Digest: s.Digest, Version: version(s.Digest), Image: s.Image, ID: s.ID, Weight: s.Weight}
		if !s.Since.IsZero() {
			t := s.Since.UTC()
			j.Since = &t
		}
		out = append(out, j)
	}
	return out
}

func sharesText(ss []deploy.Share) string {
	if len(ss) == 0 {
		return "nothing"
	}
	var parts []string
	for _, s := range ss {
		t := shortOr(s.Digest, "something that is not Waybill's")
		if len(ss) > 1 {
			t += fmt.Sprintf(" %d%%", s.Weight)
		}
		parts = append(parts, t)
	}
	return strings.Join(parts, ", ")
}

// printStatus writes the table: one line per target, and per part of its traffic.
func printStatus(c *Call, out statusJSON) {
	rows := [][]string{{"TARGET", "KIND", "DIGEST", "VERSION", "TRAFFIC", "STATE", "DRIFT"}}
	wanted := func(ok *bool) []string {
		if ok != nil && !*ok {
			return []string{"not " + out.Desired.Short()}
		}
		return nil
	}
	for _, t := range out.Targets {
		state := strings.ToLower(t.State)
		switch {
		case t.Error != "" && t.State == "":
			state = "unknown"
		case !t.Exists:
			state = "absent"
		case !t.Settled:
			state += ", changing"
		case !t.Healthy:
			state += ", not healthy"
		}
		drift := wanted(t.AsWanted)
		for _, d := range t.Drift {
			drift = append(drift, d.Field)
		}
		note := cmp.Or(strings.Join(drift, ", "), "-")
		if len(t.Shares) == 0 {
			rows = append(rows, []string{t.Name, t.Kind, "-", "-", "-", state, note})
		}
		for i, s := range t.Shares {
			row := []string{t.Name, t.Kind, shortOr(s.Digest, "not Waybill's"), cmp.Or(s.Version, "-"), fmt.Sprintf("%d%%", s.Weight), state, note}
			if i > 0 {
				row[0], row[1], row[5], row[6] = "", "", "", ""
			}
			rows = append(rows, row)
		}
	}
	if ch := out.Channel; ch != nil {
		state := "until " + ch.Expires.UTC().Format(time.DateOnly)
		if ch.Frozen {
			state = "frozen, " + state
		}
		rows = append(rows, []string{ch.Name, "edge channel", ch.Digest.Short(), ch.Version, fmt.Sprintf("%g%%", ch.Reach), state, cmp.Or(strings.Join(wanted(ch.AsWanted), ""), "-")})
	}
	widths := make([]int, len(rows[0]))
	for _, r := range rows {
		for i, cell := range r {
			widths[i] = max(widths[i], len(cell))
		}
	}
	for _, r := range rows {
		var b strings.Builder
		for i, cell := range r {
			fmt.Fprintf(&b, "%-*s  ", widths[i], cell)
		}
		c.UI.Data("%s", strings.TrimRight(b.String(), " "))
	}
	for _, t := range out.Targets {
		if t.Error != "" {
			c.UI.Warn("%s: %s", t.Name, t.Error)
		} else if t.Reason != "" {
			c.UI.Warn("%s: %s", t.Name, t.Reason)
		}
		for _, d := range t.Drift {
			c.UI.Field(t.Name, "%s", changeText(deploy.Change{Field: d.Field, Old: d.Old, New: d.New, Why: d.Why}))
		}
	}
}
