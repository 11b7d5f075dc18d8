package doctor

import (
	"cmp"
	"context"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"github.com/waybill-ml/waybill/edge-runtime/agent"
	"github.com/waybill-ml/waybill/edge-runtime/config"
	"github.com/waybill-ml/waybill/edge-runtime/control"
	"github.com/waybill-ml/waybill/edge-runtime/journal"
	"github.com/waybill-ml/waybill/edge-runtime/state"
	"github.com/waybill-ml/waybill/internal/fsx"
	"github.com/waybill-ml/waybill/internal/ui"
	"github.com/waybill-ml/waybill/oci/artifact"
	"github.com/waybill-ml/waybill/oci/channel"
	"github.com/waybill-ml/waybill/oci/devicekey"
	"github.com/waybill-ml/waybill/oci/verify"
)

// soon is how long before its end a certificate or a trust document is spoken of.
const soon = 30 * 24 * time.Hour

// checkTrust verifies the trust document in force: the provisioned one, or the newer one that was accepted since.
func (d *Doctor) checkTrust() {
	raw, err := config.ReadFile(d.cfg.Trust.File, artifact.MaxBundle)
	if err != nil {
		d.add("trust", Bad, firstHint(err, ""), "%v", err)
		return
	}
	doc, err := verify.TrustPinned(raw, d.cfg.Trust.Version, d.cfg.Trust.Digest)
	if err != nil {
		d.add("trust", Bad, "get the trust document anew from whoever signs it", "the provisioned document: %v", err)
		return
	}
	if d.doc != nil && d.doc.Trust.Version > doc.Version {
		pin := d.doc.Trust
		raw, err = state.BlobsAt(fsx.OS{}, d.cfg.State).Read(pin.File, artifact.MaxBundle)
		if err == nil {
			doc, err = verify.TrustPinned(raw, pin.Version, pin.Digest)
		}
		if err != nil {
			d.add("trust", Bad, "", "document version %d, accepted since: %v", pin.Version, err)
			return
		}
	}
	d.trust = doc
	left := doc.Expires.Sub(d.effectiveNow())
	digest, err := doc.Digest()
	if err != nil {
		d.add("trust", Bad, "", "%v", err)
		return
	}
	switch {
	case left <= 0:
		d.add("trust", Doubt, "waybill trust sign --help", "version %d, %s, expired %s ago: no record is accepted under it", doc.Version, digest.Short(), ui.Ago(-left))
	case left < soon:
		d.add("trust", Doubt, "waybill trust sign --help", "version %d, %s, expires in %s", doc.Version, digest.Short(), ui.Ago(left))
	default:
		d.ok("trust", "version %d, %s, until %s", doc.Version, digest.Short(), doc.Expires.Format(time.DateOnly))
	}
}

// effectiveNow is the time that the agent would act by.
func (d *Doctor) effectiveNow() time.Time {
	if d.doc != nil && d.Now.Before(d.doc.TimeFloor) {
		return d.doc.TimeFloor
	}
	return d.Now
}

func (d *Doctor) checkClock() {
	if d.doc != nil && d.Now.Before(d.doc.TimeFloor) {
		d.add("clock", Doubt, "timedatectl status", "%s behind the last signed time %s, which is used instead; expiry is late until it is right", ui.Ago(d.doc.TimeFloor.Sub(d.Now)), d.doc.TimeFloor.Format(time.DateTime))
	} else if year := d.Now.Year(); year < 2024 {
		d.add("clock", Doubt, "timedatectl status", "it says %s", d.Now.Format(time.DateTime))
	} else {
		d.ok("clock", "%s", d.Now.UTC().Format("2006-01-02 15:04:05 UTC"))
	}
	if synced, known := d.Sys.Synced(); known && !synced {
		d.add("clock sync", Doubt, "timedatectl set-ntp true", "the kernel says that nothing keeps the clock right")
	} else if known {
		d.ok("clock sync", "kept right by a time service")
	}
	if there, known := d.Sys.RTC(); known && !there {
		d.add("clock rtc", Doubt, "", "no real-time clock: after a power cut the last signed time is all that this device knows")
	} else if known {
		d.ok("clock rtc", "there is a real-time clock")
	}
	zone, offset := d.Now.Zone()
	d.ok("time zone", "%s, %+d min from UTC (%s)", zone, offset/60, d.Now.Location())
}

// checkChannels looks at each channel: its record, its files on disk, and what its carrier says.
func (d *Doctor) checkChannels(ctx context.Context) {
	blobs := state.BlobsAt(fsx.OS{}, d.cfg.State)
	for i := range d.cfg.Channels {
		c := &d.cfg.Channels[i]
		if d.doc != nil {
			if st := d.doc.Channels[c.Name]; st != nil {
				d.checkRecord(c.Name, st, blobs)
				d.checkFiles(ctx, c.Name, st, blobs)
			}
		}
		d.checkCarrier(ctx, c)
		d.checkCarry(c)
	}
}

func (d *Doctor) checkRecord(name string, st *state.Channel, blobs *state.Blobs) {
	check := "record " + name
	if st.Record == "" {
		d.add(check, Doubt, "waybill channel publish", "no record was accepted yet")
		return
	}
	if d.trust == nil {
		d.add(check, Skipped, "", "there is no trust document to verify it with")
		return
	}
	now := d.effectiveNow()
	r, err := agent.AcceptedRecord(blobs, st, d.trust, now)
	switch {
	case err != nil && st.Expires.Before(now):
		d.add(check, Doubt, "waybill channel refresh", "STALE: expired %s ago: what runs goes on, nothing new is activated", ui.Ago(now.Sub(st.Expires)))
	case err != nil:
		d.add(check, Bad, "waybill-edge poll --config "+d.file, "the accepted record: %v", err)
	case !now.Before(r.Expires):
		d.add(check, Doubt, "waybill channel refresh", "STALE: seq %d expired %s ago: what runs goes on, nothing new is activated", r.Seq, ui.Ago(now.Sub(r.Expires)))
	case st.Frozen != nil:
		d.add(check, Doubt, "waybill channel unfreeze", "seq %d, FROZEN since %s: %s", r.Seq, st.Frozen.Since.Format(time.DateTime), st.Frozen.Reason)
	case r.Expires.Sub(now) < r.Expires.Sub(r.Issued)/10:
		d.add(check, Doubt, "waybill channel refresh", "seq %d expires in %s, and nobody has refreshed it", r.Seq, ui.Ago(r.Expires.Sub(now)))
	default:
		d.ok(check, "seq %d, verified, until %s", r.Seq, r.Expires.Format("2006-01-02 15:04"))
	}
	if n := len(st.Quarantine); n > 0 {
		d.add("quarantine "+name, Doubt, "waybill-edge status --config "+d.file, "%s barred until the channel moves on", ui.Plural(n, "artifact"))
	}
	if st.Intent != nil && d.status == nil {
		d.add("intent "+name, Doubt, "waybill-edge run --config "+d.file, "an activation of %s stopped at %s; the next start settles it", st.Intent.Candidate.Digest.Short(), st.Intent.Step)
	}
}

// checkFiles hashes everything that may have to serve.
func (d *Doctor) checkFiles(ctx context.Context, name string, st *state.Channel, blobs *state.Blobs) {
	var total int64
	n := 0
	for _, s := range st.Slots() {
		if s.Committed.IsZero() && (st.Factory == nil || st.Factory.Digest != s.Digest) {
			continue // a candidate may be half fetched
		}
		_, size, err := agent.CheckFiles(ctx, blobs, s)
		if ctx.Err() != nil {
			return
		}
		if err != nil {
			v, help := Doubt, "it is fetched again when the channel names it"
			if st.Current != nil && s.Digest == st.Current.Digest {
				v, help = Bad, "waybill-edge rollback --config "+d.file+" --channel "+name
			}
			d.add("files "+name, v, help, "%s %s: %v", s.Version, s.Digest.Short(), err)
			continue
		}
		n, total = n+1, total+size
		if present(st, s) {
			d.sizes[name] = size
		}
	}
	if st.Current == nil {
		d.add("files "+name, Doubt, "", "nothing was activated yet")
	} else if n > 0 {
		d.ok("files "+name, "%s whole, %s hashed", ui.Plural(n, "artifact"), ui.Bytes(total))
	}
}

// lookAt asks one carrier of a channel for its record.
func lookAt(ctx context.Context, c *config.Channel, x config.Carrier) (string, error) {
	one := *c
	one.Carriers = []config.Carrier{x}
	s, err := one.Open(config.Carry{}, nil)
	if err != nil {
		return "", err
	}
	d, err := s.Resolve(ctx, channel.Tag(c.Name))
	if errors.Is(err, fs.ErrNotExist) {
		return "there is no record yet", nil
	}
	return "record " + d.Short(), err
}

// checkCarrier asks each place that the channel may come from. A folder may be absent: a stick is there when somebody brings it.
func (d *Doctor) checkCarrier(ctx context.Context, c *config.Channel) {
	check := "carrier " + c.Name
	for _, x := range c.Places() {
		name := cmp.Or(x.Registry, x.Folder, x.Mirror)
		if d.Offline && x.Folder == "" {
			d.add(check, Skipped, "", "%s: not asked (--offline)", name)
			continue
		}
		if _, err := os.Stat(x.Folder); x.Folder != "" && err != nil {
			d.add(check, Skipped, "", "%s is not there now", name)
			continue
		}
		at := time.Now()
		within, cancel := context.WithTimeout(ctx, control.Patience)
		found, err := d.Reach(within, c, x)
		cancel()
		if err != nil {
			d.add(check, Bad, firstHint(err, "waybill-edge doctor --offline"), "%s: %v", name, err)
			continue
		}
		d.ok(check, "%s, %s in %s", name, found, ui.Duration(time.Since(at)))
	}
}

func (d *Doctor) checkJournal() {
	if d.key == nil || d.doc == nil {
		d.add("journal", Skipped, "", "it takes the device key and the state to verify it")
		return
	}
	r, err := journal.Verify(fsx.OS{}, config.JournalPath(d.cfg), d.doc.Journal, devicekey.Journal{Key: d.key})
	switch {
	case errors.Is(err, fs.ErrPermission):
		d.add("journal", Bad, "chmod 600 "+config.JournalPath(d.cfg), "%v", err)
	case err != nil:
		d.add("journal", Bad, "waybill-edge verify-journal --config "+d.file, "%v", err)
	case r.Torn && d.status == nil:
		d.add("journal", Doubt, "waybill-edge run --config "+d.file, "%s entries verified; one after them was being written when the power went", ui.Count(r.Head.Entries))
	default:
		d.ok("journal", "%s entries verified, %s", ui.Count(r.Head.Entries), ui.Plural(r.Checkpoints, "signed checkpoint"))
	}
	if aside, err := filepath.Glob(config.JournalPath(d.cfg) + ".damaged-*"); err == nil && len(aside) > 0 {
		d.add("journal", Doubt, "look at it, then remove it", "%s was put aside as damaged", filepath.Base(aside[len(aside)-1]))
	}
}

// checkCache looks at the compile cache; without it every start compiles.
func (d *Doctor) checkCache() {
	dir, secret := filepath.Join(d.cfg.State, "cache"), filepath.Join(d.cfg.State, "cache.secret")
	info, err := os.Stat(dir)
	if errors.Is(err, fs.ErrNotExist) {
		d.add("compile cache", Skipped, "", "there is none yet")
		return
	}
	if err != nil {
		d.add("compile cache", Bad, "", "%v", err)
		return
	}
	raw, serr := os.Stat(secret)
	posix := os.PathSeparator == '/'
	switch {
	case posix && info.Mode().Perm()&0o022 != 0:
		d.add("compile cache", Bad, "chmod 700 "+dir, "%s may be written by others (mode %04o): whoever writes there runs code in the agent", dir, info.Mode().Perm())
	case serr != nil:
		d.add("compile cache", Doubt, "", "its secret can't be read, every start compiles: %v", serr)
	case posix && raw.Mode().Perm()&0o077 != 0:
		d.add("compile cache", Bad, "rm "+secret, "its secret may be read by others (mode %04o)", raw.Mode().Perm())
	default:
		size, entries := int64(0), 0
		if es, err := os.ReadDir(dir); err == nil {
			entries = len(es)
		}
		_ = filepath.WalkDir(dir, func(_ string, e fs.DirEntry, err error) error {
			if err == nil && e.Type().IsRegular() {
				if i, ierr := e.Info(); ierr == nil {
					size += i.Size()
				}
			}
			return nil
		})
		d.ok("compile cache", "%s, %s", ui.Plural(entries, "module"), ui.Bytes(size))
	}
}

// checkCertificates looks for certificates that end soon.
func (d *Doctor) checkCertificates() {
	seen := map[string]bool{}
	for i := range d.cfg.Channels {
		for _, x := range d.cfg.Channels[i].Places() {
			for _, f := range []string{x.ClientCert, x.CAFile} {
				if f == "" || seen[f] {
					continue
				}
				seen[f] = true
				d.checkCertificate(f, f == x.ClientCert)
			}
		}
	}
}

func (d *Doctor) checkCertificate(file string, own bool) {
	raw, err := config.ReadFile(file, 1<<20)
	if err != nil {
		d.add("certificate", Bad, firstHint(err, ""), "%v", err)
		return
	}
	name := filepath.Base(file)
	found := 0
	var ends time.Time
	for {
		var b *pem.Block
		if b, raw = pem.Decode(raw); b == nil {
			break
		}
		if b.Type != "CERTIFICATE" {
			continue
		}
		crt, err := x509.ParseCertificate(b.Bytes)
		if err != nil {
			d.add("certificate", Bad, "", "%s: %v", name, err)
			return
		}
		if found++; found == 1 || crt.NotAfter.Before(ends) {
			ends = crt.NotAfter
		}
		if own {
			break // those after it are its issuers
		}
	}
	left := ends.Sub(d.effectiveNow())
	switch {
	case found == 0:
		d.add("certificate", Bad, "", "%s holds no certificate", name)
	case left <= 0 && own:
		d.add("certificate", Bad, "renew it; the agent reads it when it starts", "%s expired on %s", name, ends.Format(time.DateOnly))
	case left < soon:
		d.add("certificate", Doubt, "renew it; the agent reads it when it starts", "%s: ends on %s", name, ends.Format(time.DateOnly))
	default:
		d.ok("certificate", "%s, until %s", name, ends.Format(time.DateOnly))
	}
}

// checkService looks at the port that models are served on.
func (d *Doctor) checkService() {
	if d.cfg == nil {
		return
	}
	if d.status == nil {
		l, err := net.Listen("tcp", d.cfg.Listen)
		if err != nil {
			d.add("port", Bad, "set \"listen\" in "+d.file+" to a free port", "%s: %v", d.cfg.Listen, err)
			return
		}
		_ = l.Close()
		d.ok("port", "%s is free", d.cfg.Listen)
		return
	}
	addr, err := config.ReadFile(filepath.Join(d.cfg.State, "addr"), 1<<10)
	if err != nil {
		d.add("port", Doubt, "", "the agent's address: %v", err)
		return
	}
	c := &http.Client{Timeout: control.Patience}
	resp, err := c.Get("http://" + trimLine(addr) + "/v2/health/live")
	if err != nil {
		d.add("port", Bad, "systemctl restart waybill-edge", "%v", err)
		return
	}
	_ = resp.Body.Close()
	v := Good
	if resp.StatusCode != http.StatusOK {
		v = Bad
	}
	d.add("port", v, "", "%s answers %s", trimLine(addr), resp.Status)
}

func trimLine(b []byte) string {
	for len(b) > 0 && (b[len(b)-1] == '\n' || b[len(b)-1] == ' ') {
		b = b[:len(b)-1]
	}
	return string(b)
}
