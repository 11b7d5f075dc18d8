package agent

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/waybill-ml/waybill/edge-runtime/deviceinput"
	"github.com/waybill-ml/waybill/edge-runtime/journal"
	"github.com/waybill-ml/waybill/edge-runtime/state"
	"github.com/waybill-ml/waybill/internal/strictjson"
	"github.com/waybill-ml/waybill/oci/artifact"
	"github.com/waybill-ml/waybill/oci/channel"
	"github.com/waybill-ml/waybill/oci/trust"
)

// Local is the device's own policy: whether it may take a model now, by battery, memory, hours and the like. It is asked
// before files are fetched and before they are activated, never about what passed here before.
type Local interface {
	// Digest is that of the policy in force, which the trust document must pin; "" when there is none that could be used, and
	// Decide then only tells why.
	Digest() artifact.Digest
	// Decide completes ask with the readings of the device and evaluates the policy. why tells people the reason of a no, a
	// policy that could not decide included.
	Decide(ctx context.Context, ask *deviceinput.Document) (allow bool, why string)
}

// postponed says: not now. It is neither a failure nor a refusal, and the next poll asks again.
type postponed struct {
	action deviceinput.Action
	why    string
}

func (e *postponed) Error() string { return fmt.Sprintf("%s waits: %s", e.action, e.why) }

// pinned tells whether the trust document lets devices use a policy of this digest.
func pinned(doc *trust.Document, d artifact.Digest) bool { return slices.Contains(doc.Policies, d) }

// permitted asks the device's policy about an action; a no is a *postponed. m is the verified manifest of the target.
func (f *follower) permitted(ctx context.Context, action deviceinput.Action, target state.Slot, m *artifact.Model) error {
	local := f.a.Local
	if local == nil || !target.Committed.IsZero() {
		return nil
	}
	no := func(format string, args ...any) error {
		return &postponed{action: action, why: clip(fmt.Sprintf(format, args...))}
	}
	if d, doc := local.Digest(), f.a.Trust(); !f.a.checks.pinned(doc, d) {
		if d == "" {
			_, why := local.Decide(ctx, nil)
			return no("%s", why)
		}
		return no("trust document version %d does not pin the policy of this device, %s", doc.Version, d.Short())
	}
	ask := f.ask(action, target, m)
	allow, why := local.Decide(ctx, ask)
	if ctx.Err() != nil {
		return fmt.Errorf("%w: %w", ErrTransient, context.Cause(ctx))
	}
	if !allow {
		return no("%s", why)
	}
	return nil
}

// ask is what the agent itself knows for the policy.
func (f *follower) ask(action deviceinput.Action, target state.Slot, m *artifact.Model) *deviceinput.Document {
	now := f.a.Clock.Now()
	d := &deviceinput.Document{
		Schema: deviceinput.Schema, Action: action, Time: deviceinput.Time{Unix: f.a.now().Unix()},
		Device: deviceinput.Device{Class: f.a.cfg.Class, Labels: f.a.cfg.Labels},
		Model:  deviceinput.Model{Name: target.Name, Version: target.Version, Digest: target.Digest, Epoch: target.Epoch},
	}
	if !now.Before(f.a.Store.Doc().TimeFloor) {
		d.Time.Local = deviceinput.LocalAt(now)
	}
	for _, l := range deviceLayers(m) {
		d.Model.Bytes += l.Size
		d.Model.Download += max(f.a.blobs.Missing(l.Digest, l.Size), 0)
		if l.Role == artifact.RoleInterface && action == deviceinput.Activate {
			d.Model.Memory = f.need(l)
		}
	}
	if c := f.state().Current; c != nil {
		d.Current = deviceinput.Current{Known: true, Name: &c.Name, Version: &c.Version, Digest: &c.Digest, Epoch: &c.Epoch}
	}
	return d
}

// need reads from the interface document how much memory the model asks for; what cannot be read is not known.
func (f *follower) need(l artifact.Layer) deviceinput.Need {
	iface, err := f.iface(l)
	if err != nil || iface.Memory.Max == 0 || iface.Memory.Max > 1<<52 {
		return deviceinput.Need{}
	}
	most := int64(iface.Memory.Max)
	return deviceinput.Need{Known: true, Bytes: &most}
}

// iface reads the interface document in l.
func (f *follower) iface(l artifact.Layer) (*artifact.Interface, error) {
	var iface artifact.Interface
	raw, err := f.a.blobs.Read(l.Digest, min(l.Size, artifact.MaxInterface))
	if err == nil {
		err = strictjson.DecodeOpen(raw, &iface)
	}
	return &iface, err
}

// waits asks about a target whose manifest is here already, before anything is written down: a device that waits for its
// battery does not wear its flash at every poll. nil: go on.
func (f *follower) waits(ctx context.Context, target state.Slot) error {
	w := f.state().Waiting
	if f.a.Local == nil || w == nil || w.Slot.Digest != target.Digest {
		return nil
	}
	m, err := f.manifest(target)
	if err != nil {
		return nil // it is fetched again
	}
	action := deviceinput.Activate
	if f.missing(m) {
		action = deviceinput.Download
	}
	return f.permitted(ctx, action, target, m)
}

// missing tells whether files of an artifact are not here.
func (f *follower) missing(m *artifact.Model) bool {
	return slices.ContainsFunc(deviceLayers(m), func(l artifact.Layer) bool { return f.a.blobs.Missing(l.Digest, l.Size) > 0 })
}

// postpone ends an attempt that the device's policy does not allow now: nothing failed, what serves goes on. It is written
// down when the waiting begins, not at every poll. The error is p, or that it could not be written down.
func (f *follower) postpone(r *channel.Record, target state.Slot, p *postponed) error {
	f.waitWhy.Store(&p.why)
	c := f.state()
	w := c.Waiting
	same := w != nil && w.Slot.Digest == target.Digest && w.Generation == r.Generation && w.Slot.Seq == r.Seq && w.Action == string(p.action)
	if same && c.Intent == nil {
		return p
	}
	var events []journal.Entry
	if !same {
		w = &state.Waiting{Slot: target, Generation: r.Generation, Action: string(p.action), Since: f.a.now().Truncate(time.Second), Reason: p.why}
		events = append(events, f.about(KindPostponed, target, r.Seq, p.Error()))
	}
	if err := f.change(func(c *state.Channel) error { c.Intent, c.Waiting = nil, w; return nil }, events...); err != nil {
		return fmt.Errorf("%w: %w", ErrTransient, err)
	}
	return p
}

// isPostponed finds a *postponed in err.
func isPostponed(err error) (*postponed, bool) {
	var p *postponed
	ok := errors.As(err, &p)
	return p, ok
}
