package config

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/waybill-ml/waybill/internal/diag"
)

// What can be known to be wrong before anything starts is a mistake in the file, told with its key.
func TestMistakesInFile(t *testing.T) {
	const channel = `{"name":"prod","env":"prod","registry":"reg.example","repo":"ml/churn","model":"churn","resource_uri":"waybill:ml/churn"}`
	load := func(listen, channels string) error {
		file := filepath.Join(t.TempDir(), "config.json")
		raw := `{"state":"state","class":"edge-s","listen":"` + listen + `","trust":{"file":"t","version":1,"digest":"sha256:` + strings.Repeat("a", 64) + `"},"channels":[` + channels + `]}`
		if err := os.WriteFile(file, []byte(raw), 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := Load(file)
		return err
	}
	for _, c := range []struct{ listen, channels, want string }{
		{"nonsense", channel, `listen: "nonsense" is no address`},
		{"127.0.0.1:99999", channel, "listen: "},
		{"127.0.0.1:0", channel + "," + channel, "channels[1] has the name"},
		{"127.0.0.1:0", channel + "," + strings.Replace(channel, `"prod"`, `"next"`, 1), `the model "churn" of channels[0]`},
		{"127.0.0.1:0", strings.Replace(channel, `"env"`, `"interval":"soon","env"`, 1), `"soon" is no length of time`},
		{"127.0.0.1:0", strings.Replace(channel, `"env"`, `"interval":"-1s","env"`, 1), `"-1s" is negative`},
	} {
		if err := load(c.listen, c.channels); diag.CodeOf(err) != diag.Usage || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %s", c.listen, err, c.want)
		}
	}
	for _, listen := range []string{"127.0.0.1:0", ":8080", "[::1]:80", "localhost:http"} {
		if err := load(listen, channel); err != nil {
			t.Errorf("%s: %v", listen, err)
		}
	}
}
