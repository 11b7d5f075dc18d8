package config

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// A zone that this machine does not know keeps nobody from reading the configuration, closes the windows, and is refused where a
// person can correct it.
func TestUnknownZone(t *testing.T) {
	file := filepath.Join(t.TempDir(), "config.json")
	raw := `{"state":"state","class":"edge-s","listen":"127.0.0.1:0","trust":{"file":"t","version":1,"digest":"sha256:` + strings.Repeat("a", 64) + `"},
		"windows":["00:00-24:00"],"timezone":"Nowhere/At_All","channels":[{"name":"prod","env":"prod","registry":"reg.example","repo":"ml/churn","model":"churn","resource_uri":"x"}]}`
	if err := os.WriteFile(file, []byte(raw), 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := Load(file)
	if err != nil {
		t.Fatal(err)
	}
	if err := c.CheckZones(); !ZoneLost(err) || !strings.Contains(err.Error(), "tzdata") {
		t.Errorf("CheckZones: %v", err)
	}
	w, err := c.Over(c.Channels[0].Carry).ParseWindows()
	if !ZoneLost(err) || w.Always() || w.Open(time.Now()) || !strings.Contains(w.Closed(), "Nowhere/At_All") || w.String() != "00:00-24:00" {
		t.Errorf("%v, %q is open: %v", err, w, w.Open(time.Now()))
	}
	// Where there is nothing to close, nothing is closed.
	c.Windows = nil
	if w, _ := c.ParseWindows(); !w.Always() || !w.Open(time.Now()) || w.Closed() != "" {
		t.Errorf("no windows are closed: %q", w.Closed())
	}
	c.Timezone = "UTC"
	if err := c.CheckZones(); err != nil {
		t.Error(err)
	}
}

// The zone of the device itself can be lost too; it would pass for UTC.
func TestLostLocal(t *testing.T) {
	dir := t.TempDir()
	data, link := filepath.Join(dir, "Berlin"), filepath.Join(dir, "localtime")
	if err := os.Symlink(data, link); err != nil {
		t.Skipf("no symbolic links: %v", err)
	}
	if err := lostLocal(link, ""); !ZoneLost(err) {
		t.Errorf("a link to nothing: %v", err)
	}
	if err := lostLocal(link, "UTC"); err != nil {
		t.Errorf("TZ counts before it: %v", err)
	}
	if err := os.WriteFile(data, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, p := range []string{link, data, filepath.Join(dir, "none")} {
		if err := lostLocal(p, ""); err != nil {
			t.Errorf("%s: %v", p, err)
		}
	}
}
