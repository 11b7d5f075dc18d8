package demo

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"regexp"
	"strings"
	"time"
)

// What the latency budget rests on. v2 takes about 4 times as long as v1 on the same rows, v3 about 150 times, on any
// machine. The budget is on the median, which the noise of a busy machine moves little, at 50 times v1's best.
const (
	budgetFactor = 50
	slowFactor   = 150
	minRequests  = 3
)

// note is an event that the device remembers.
type note struct {
	From   string `json:"from"`
	To     string `json:"to"`
	Seq    int64  `json:"seq"`
	Reason string `json:"reason"`
}

type slot struct {
	Digest  string `json:"digest"`
	Version string `json:"version"`
}

// deviceStatus is what the demo reads of waybill-edge status.
type deviceStatus struct {
	Seq          int64  `json:"seq"`
	State        string `json:"state"`
	Current      *slot  `json:"current"`
	Candidate    *slot  `json:"candidate"`
	Previous     *slot  `json:"previous"`
	LastRollback *note  `json:"lastRollback"`
	LastRefusal  *note  `json:"lastRefusal"`
}

func (w *world) status(ctx context.Context) (deviceStatus, error) {
	o, err := w.deviceQuiet(ctx, "status", "--config", w.config, "--output", "json")
	if err != nil {
		return deviceStatus{}, err
	}
	var v struct {
		Channels []deviceStatus `json:"channels"`
	}
	if err := o.json(&v); err != nil {
		return deviceStatus{}, err
	}
	if len(v.Channels) != 1 {
		return deviceStatus{}, fmt.Errorf("the device reports %d channels, want 1", len(v.Channels))
	}
	return v.Channels[0], nil
}

// settled waits until the device has committed a digest under at least seq.
func (w *world) settled(ctx context.Context, v string, seq int64) error {
	var last deviceStatus
	err := w.wait(ctx, 2*w.trial()+20*time.Second, v+" to be committed on the device", w.edge, func() bool {
		s, err := w.status(ctx)
		if err == nil {
			last = s
		}
		return err == nil && s.State == "committed" && s.Current != nil && s.Current.Digest == w.digests[v] && s.Seq >= seq
	})
	if err != nil && last.LastRefusal != nil {
		err = fmt.Errorf("%w; the device's last refusal: %s", err, last.LastRefusal.Reason)
	}
	if err != nil && last.LastRollback != nil {
		err = fmt.Errorf("%w; its last rollback: %s", err, last.LastRollback.Reason)
	}
	return err
}

// trial is how long a new artifact is on probation.
func (w *world) trial() time.Duration {
	return min(max(3*time.Second, w.best*slowFactor*8), 30*time.Second).Round(time.Millisecond)
}

// budget is the device's limit for the median time of one inference.
func (w *world) budget() time.Duration {
	return max(w.best*budgetFactor, 20*time.Millisecond).Round(time.Millisecond)
}

func stepDeploy(ctx context.Context, w *world) (string, error) {
	o, err := w.run(ctx, 0, "bench", w.ref("v1"), "--batch", fmt.Sprint(repeats*w.rows.n), "--duration", "300ms", "--output", "json")
	if err != nil {
		return "", err
	}
	var bench struct {
		Latency struct {
			Min int64 `json:"min"`
		} `json:"latency_ns"`
	}
	if err := o.json(&bench); err != nil {
		return "", err
	}
	w.best = time.Duration(bench.Latency.Min)
	w.say("version 1 takes %s for %d rows on this machine", w.best.Round(10*time.Microsecond), repeats*w.rows.n)
	if _, err := w.run(ctx, 4, "channel", "publish", "prod", w.ref("v1"), "--key", "deployer.key"); err != nil {
		return "", err
	}
	w.say("the device pins the trust document's digest, follows the channel, and keeps to a budget of %s:", w.budget())
	if _, err := w.device(ctx, 0, "enroll", "--out", "device", "--class", "edge-s", "--trust", "trust.signed", "--trust-digest", w.digests["trust"],
		"--follow", w.repo(), "--channel", "prod", "--listen", "127.0.0.1:0", "--interval", "200ms",
		"--trial", w.trial().String(), "--min-requests", fmt.Sprint(minRequests), "--p50", w.budget().String()); err != nil {
		return "", err
	}
	w.config = "device/config.json"
	listening := regexp.MustCompile(`listening on (http://127\.0\.0\.1:\d+)`)
	w.edge, err = w.startDevice(ctx, func(log string) bool {
		m := listening.FindStringSubmatch(log)
		if m != nil {
			w.api = m[1]
		}
		return m != nil
	}, "run", "--config", w.config)
	if err != nil {
		return "", err
	}
	if err := w.settled(ctx, "v1", 1); err != nil {
		return "", err
	}
	if _, err := w.device(ctx, 3, "status", "--config", w.config); err != nil {
		return "", err
	}
	h := &http.Client{Timeout: 30 * time.Second}
	w.printf("   %s\n", w.o.UI.Err.Cyan("$ curl "+w.infer()+" -d @rows.json"))
	if err := os.WriteFile(w.path("rows.json"), w.rows.small, 0o600); err != nil {
		return "", err
	}
	got, err := post(ctx, h, w.infer(), w.rows.small)
	if err != nil {
		return "", err
	}
	if got.digest != w.digests["v1"] {
		return "", fmt.Errorf("the device answers as %s, published was %s", got.digest, w.digests["v1"])
	}
	worst, err := w.rows.compare(got, "v1")
	if err != nil {
		return "", err
	}
	want := w.rows.answers["v1"]
	w.printf("     row  label   device        scikit-learn\n")
	for i := range 4 {
		w.printf("     %3d  %-6s  %.9f   %.9f\n", i+1, []string{"malig.", "benign"}[int(got.label[i])], got.prob[2*i+1], want.prob[2*i+1])
	}
	h.CloseIdleConnections()
	return fmt.Sprintf("%d rows answered over HTTP, all labels equal, probabilities within %.1e of scikit-learn's", w.rows.n, worst), nil
}

func stepUpdate(ctx context.Context, w *world) (string, error) {
	c := w.startClient()
	stopped := false
	defer func() {
		if !stopped {
			_ = c.stop(w) // another error is on its way
		}
	}()
	if err := w.release(ctx, "v2", "2.0.0"); err != nil {
		return "", err
	}
	if err := w.gate(ctx, "v2", 4); err != nil {
		return "", err
	}
	if _, err := w.run(ctx, 2, "channel", "publish", "prod", w.ref("v2"), "--key", "deployer.key"); err != nil {
		return "", err
	}
	if err := w.settled(ctx, "v2", 2); err != nil {
		return "", err
	}
	if err := w.wait(ctx, 20*time.Second, "answers of version 2", w.edge, func() bool { return c.count("v2") > 0 }); err != nil {
		return "", err
	}
	stopped = true
	if err := c.stop(w); err != nil {
		return "", err
	}
	if c.by["v1"] == 0 {
		return "", errors.New("no request was answered by version 1: the switch was not under load")
	}
	if _, err := w.device(ctx, 2, "status", "--config", w.config); err != nil {
		return "", err
	}
	return fmt.Sprintf("%d requests during the switch, none failed: %d answered by version 1, %d by version 2", c.total, c.by["v1"], c.by["v2"]), nil
}

func stepDenied(ctx context.Context, w *world) (string, error) {
	if err := w.release(ctx, "denied", "2.1.0"); err != nil {
		return "", err
	}
	before, err := w.channelHead(ctx)
	if err != nil {
		return "", err
	}
	o, err := w.expect(ctx, 4, regexp.MustCompile(`(?s)DENIED.*roc_auc.*fix `), 0, "gate", w.ref("denied"), "--env", "prod", "--key", "gate.key")
	if err != nil {
		return "", err
	}
	w.tail(o.stderr, 24)
	if _, err := w.expect(ctx, 4, regexp.MustCompile(`may not ship to prod`), 3, "channel", "publish", "prod", w.ref("denied"), "--key", "deployer.key"); err != nil {
		return "", err
	}
	after, err := w.channelHead(ctx)
	if err != nil {
		return "", err
	}
	if after != before {
		return "", fmt.Errorf("the channel moved from %+v to %+v", before, after)
	}
	n, err := w.denials(ctx, w.ref("denied"))
	if err != nil {
		return "", err
	}
	if n == 0 {
		return "", errors.New("the signed denial is not attached to the digest")
	}
	return fmt.Sprintf("denied with exit code 4; the channel stays at seq %d; the signed denial is attached", after.Seq), nil
}

// denials counts the verified verdicts attached to ref that say FAILED for prod.
func (w *world) denials(ctx context.Context, ref string) (int, error) {
	o := w.quiet(ctx, "facts", ref, "--env", "prod", "--output", "json")
	if o.code != 0 {
		return 0, fmt.Errorf("facts: exit code %d: %s", o.code, firstLines(o.stderr, 3))
	}
	return strings.Count(strings.ReplaceAll(o.stdout, " ", ""), `"result":"FAILED"`), nil
}

func stepRollback(ctx context.Context, w *world) (string, error) {
	c := w.startClient()
	stopped := false
	defer func() {
		if !stopped {
			_ = c.stop(w) // another error is on its way
		}
	}()
	// It has passed staging already.
	if _, err := w.expect(ctx, 0, regexp.MustCompile(`ALLOWED`), 3, "gate", w.ref("v3"), "--env", "prod", "--key", "gate.key"); err != nil {
		return "", err
	}
	if _, err := w.run(ctx, 2, "channel", "publish", "prod", w.ref("v3"), "--key", "deployer.key"); err != nil {
		return "", err
	}
	head, err := w.channelHead(ctx)
	if err != nil {
		return "", err
	}
	if head.Digest != w.digests["v3"] {
		return "", fmt.Errorf("the channel names %s, not version 3", head.Digest)
	}
	w.say("the device tries version 3 under live traffic ...")
	var s deviceStatus
	err = w.wait(ctx, w.trial()+40*time.Second, "the device to go back to version 2", w.edge, func() bool {
		var serr error
		s, serr = w.status(ctx)
		return serr == nil && s.Seq == head.Seq && s.State == "committed" && s.LastRollback != nil && s.LastRollback.From == w.digests["v3"]
	})
	if err != nil {
		return "", fmt.Errorf("%w (it is at seq %d, %s)", err, s.Seq, s.State)
	}
	if s.Current == nil || s.Current.Digest != w.digests["v2"] || s.LastRollback.To != w.digests["v2"] {
		return "", fmt.Errorf("the device went back to %+v, not to version 2", s.Current)
	}
	reason := s.LastRollback.Reason
	if !strings.Contains(reason, "latency budget") {
		return "", fmt.Errorf("the device went back for another reason than latency: %s", reason)
	}
	if _, err := w.device(ctx, 4, "status", "--config", w.config); err != nil {
		return "", err
	}
	at := c.count("v2")
	if err := w.wait(ctx, 20*time.Second, "answers of version 2", w.edge, func() bool { return c.count("v2") > at }); err != nil {
		return "", err
	}
	w.say("the operator takes the whole fleet back to version 1:")
	if _, err := w.run(ctx, 3, "channel", "rollback", "prod", w.repo(), "--to", w.digests["v1"], "--reason", "version 3 is too slow on edge-s", "--key", "deployer.key"); err != nil {
		return "", err
	}
	if err := w.settled(ctx, "v1", head.Seq+1); err != nil {
		return "", err
	}
	w.say("and someone at the device takes this one back to what it ran before:")
	if _, err := w.device(ctx, 2, "rollback", "--config", w.config); err != nil {
		return "", err
	}
	if err := w.settled(ctx, "v2", head.Seq+1); err != nil {
		return "", err
	}
	if _, err := w.device(ctx, 5, "status", "--config", w.config); err != nil {
		return "", err
	}
	stopped = true
	if err := c.stop(w); err != nil {
		return "", err
	}
	if c.by["v3"] == 0 {
		return "", errors.New("no request was answered by version 3: its trial was not under load")
	}
	w.facts["rollback"] = reason
	return fmt.Sprintf("back to version 2 by itself (%s); %d requests meanwhile, none failed", reason, c.total), nil
}
