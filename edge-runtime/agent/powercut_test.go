package agent

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/waybill-ml/waybill/edge-runtime/journal"
	"github.com/waybill-ml/waybill/internal/fsx"
	"github.com/waybill-ml/waybill/oci/artifact"
	"github.com/waybill-ml/waybill/oci/channel"
	"github.com/waybill-ml/waybill/oci/devicekey"
	"github.com/waybill-ml/waybill/oci/verify/verifytest"
)

// The device of the power cuts: this test binary, started again with WAYBILL_POWER_CHILD=update or check in the root
// of a real file system. It runs the agent on what the feed file says, one update or rollback after the other, and tells
// on its standard output what it tries and what it acknowledges.

// powerFeed is what the carrier holds, step by step.
type powerFeed struct {
	Trust []byte
	Ref   channel.TrustRef
	Blobs map[artifact.Digest][]byte
	Tags  []map[string]artifact.Digest // after each record
	Texts map[artifact.Digest]string
}

// powerAck is one line from the device.
type powerAck struct {
	Try     artifact.Digest `json:",omitempty"` // what may serve from now on
	Serving artifact.Digest `json:",omitempty"` // acknowledged: what serves
	Seq     int64           `json:",omitempty"`
	Step    int             `json:",omitempty"`
	Head    journal.Head
}

// powerAsk is what a check must find.
type powerAsk struct {
	Allowed []artifact.Digest
	Last    powerAck
}

// newPowerFeed makes the records of a channel with n targets, each fifth of which fails its trial.
func newPowerFeed(t testing.TB, n int) *powerFeed {
	w := newWorld(t)
	feed := &powerFeed{Trust: w.Trust(), Ref: w.TrustRef(), Texts: map[artifact.Digest]string{}}
	for i := range n {
		text := fmt.Sprintf("%d.0 good %s", i+1, strings.Repeat("z", 3000*(i%7)))
		if i%5 == 4 {
			text = fmt.Sprintf("%d.0 slow", i+1)
		}
		target := w.model(text)
		feed.Texts[target.Digest] = text
		w.publish(w.change(target))
		tags := map[string]artifact.Digest{}
		for k, v := range w.reg.tags {
			tags[k] = v
		}
		feed.Tags = append(feed.Tags, tags)
	}
	feed.Blobs = w.reg.blobs
	return feed
}

// scenario is the device of the feed.
func (feed *powerFeed) scenario() *scenario {
	t := fatal{}
	w := &world{World: verifytest.New(t), reg: &registry{tags: map[string]artifact.Digest{}, blobs: feed.Blobs}}
	var err error
	if w.key, err = powerKey(); err != nil {
		panic(err)
	}
	return &scenario{name: "power", world: w, trust: feed.Trust, trustRef: feed.Ref, models: []string{"churn"}, texts: feed.Texts,
		edit: func(c *Config) { c.MaxRollbacks = 1 << 20 }} // cuts in trials would hold the device, and what follows would cut nothing
}

// powerKey is the key of newWorld.
func powerKey() (*devicekey.Key, error) {
	return devicekey.Generate(strings.NewReader(strings.Repeat("k", 32)))
}

type fatal struct{}

func (fatal) Helper()                   {}
func (fatal) Fatalf(f string, a ...any) { panic(fmt.Sprintf(f, a...)) }

// powerChild is the process of the device.
func powerChild(ctx context.Context, mode string) int {
	var feed powerFeed
	b, err := os.ReadFile(os.Getenv("WAYBILL_POWER_FEED"))
	if err == nil {
		err = json.Unmarshal(b, &feed)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 2
	}
	var mu mutant
	if os.Getenv("WAYBILL_POWER_LAZY") == "1" {
		mu.fs = func(inner fsx.FS) fsx.FS {
			return &layer{FS: inner, syncFile: func(fsx.File) error { return nil }, syncDir: func(string) error { return nil }}
		}
	}
	s := feed.scenario()
	d, err := s.boot(ctx, fsx.OS{}, &tape{}, mu)
	if d == nil || err != nil {
		fmt.Println("bad: no start:", err)
		return 1
	}
	if mode == "check" {
		return powerCheck(ctx, s, d)
	}
	out := json.NewEncoder(os.Stdout)
	tell := func(a powerAck) { _ = out.Encode(a) }
	step := int(d.channel().Seq)
	ack := func() {
		cur, _ := d.server.serving("churn")
		tell(powerAck{Serving: cur, Seq: d.channel().Seq, Step: step, Head: d.Journal.Head()})
	}
	ack()
	for ; step < len(feed.Tags); step++ {
		s.world.reg.mu.Lock()
		s.world.reg.tags = feed.Tags[step]
		s.world.reg.mu.Unlock()
		for dig, text := range feed.Texts {
			if strings.HasPrefix(text, fmt.Sprintf("%d.0 good", step+1)) {
				tell(powerAck{Try: dig})
			}
		}
		if err := d.poll(ctx); err != nil && step%5 != 4 {
			return 0 // the file system is gone
		}
		ack()
		if c := d.channel(); step%4 == 3 && c.Previous != nil {
			tell(powerAck{Try: c.Previous.Digest})
			if _, err := d.Rollback(ctx, "prod", ""); err != nil {
				return 0
			}
			ack()
		}
	}
	fmt.Println(`{"Step":-1}`)
	_, _ = io.Copy(io.Discard, os.Stdin) // until the cut
	return 0
}

// powerCheck looks at the device after a power cut.
func powerCheck(ctx context.Context, s *scenario, d *faultDevice) int {
	var ask powerAsk
	if err := json.Unmarshal([]byte(os.Getenv("WAYBILL_POWER_ASK")), &ask); err != nil {
		fmt.Println("bad:", err)
		return 2
	}
	code := 0
	bad := func(format string, args ...any) {
		fmt.Printf("bad: "+format+"\n", args...)
		code = 1
	}
	c := d.channel()
	cur, text := d.server.serving("churn")
	switch {
	case !slices.Contains(ask.Allowed, cur):
		bad("I2 %s serves, acknowledged was %s", cur, ask.Last.Serving)
	case cur != "" && text != s.texts[cur]:
		bad("I2 %s serves with other content", cur)
	case c.Current != nil && c.Current.Digest != cur:
		bad("I2 the document says %s", c.Current.Digest)
	}
	if c.Seq < ask.Last.Seq {
		bad("I4 seq %d, acknowledged %d", c.Seq, ask.Last.Seq)
	}
	if c.Intent != nil {
		bad("I8 intent %s", c.Intent.Step)
	}
	for _, slot := range c.Slots() {
		if slot.Committed.IsZero() {
			continue
		}
		if _, err := d.followers[0].checkBlobs(ctx, slot); err != nil {
			bad("I5 %s: %v", slot.Version, err)
		}
	}
	if _, err := journal.Verify(fsx.OS{}, filepath.Join(stateDir, "journal.log"), ask.Last.Head, journalSigner{s.world.key}); err != nil {
		bad("I6 %v", err)
	}
	es, err := os.ReadDir(stateDir)
	if err != nil {
		bad("I8 %v", err)
	}
	for _, e := range es {
		if fsx.IsTemp(e.Name()) {
			bad("I8 %s is left", e.Name())
		}
	}
	_ = json.NewEncoder(os.Stdout).Encode(powerAck{Serving: cur, Seq: c.Seq, Head: d.Journal.Head()})
	return code
}

// powerRead takes the lines of a device: what it acknowledged last, and what else may serve.
func powerRead(r io.Reader, ask *powerAsk, lines chan<- int) {
	sc := bufio.NewScanner(r)
	sc.Buffer(nil, 1<<20)
	for sc.Scan() {
		var a powerAck
		if json.Unmarshal(sc.Bytes(), &a) != nil {
			continue
		}
		switch {
		case a.Try != "":
			ask.Allowed = append(ask.Allowed, a.Try)
		case a.Step >= 0:
			ask.Last, ask.Allowed = a, []artifact.Digest{a.Serving}
		}
		select {
		case lines <- a.Step:
		default:
		}
	}
	close(lines)
}
