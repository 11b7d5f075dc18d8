package config

import (
	"testing"
)

func TestCarryConfig(t *testing.T) {
	good := func(edit string) error {
		var c Channel
		raw := `{"name":"prod","env":"prod","model":"churn","resource_uri":"x","interval":"1m"` + edit + `}`
		if err := Decode("config.json", []byte(raw), &c); err != nil {
			return err
		}
		return checkChannels([]Channel{c})
	}
	for _, ok := range []string{
		`,"registry":"reg.example","repo":"ml/churn"`, `,"carriers":[{"registry":"reg.example","repo":"ml/churn"},{"folder":"/media"},{"mirror":"https://m.example/x"}]`,
		`,"carriers":[{"folder":"s"}],"windows":["Mon-Fri 02:00-05:00"],"timezone":"UTC","download":"always","no_clock":"update","bandwidth":"512kB/s","min_rate":"1kB"`,
	} {
		if err := good(ok); err != nil {
			t.Errorf("%s: %v", ok, err)
		}
	}
	for _, bad := range []string{
		``, `,"carriers":[]`, `,"carriers":[{}]`, `,"carriers":[{"folder":"a","mirror":"https://b"}]`, `,"registry":"r","repo":"a","carriers":[{"folder":"s"}]`, `,"carriers":[{"registry":"r"}]`,
		`,"carriers":[{"folder":"s","plain_http":true}]`, `,"carriers":[{"mirror":"ftp://x"}]`, `,"carriers":[{"folder":"s"}],"windows":["Mo 1-2"]`, `,"carriers":[{"folder":"s"}],"timezone":"../etc/passwd"`,
		`,"carriers":[{"folder":"s"}],"download":"never"`, `,"carriers":[{"folder":"s"}],"bandwidth":"10"`, `,"carriers":[{"folder":"s"}],"bandwidth":"fast"`, `,"carriers":[{"folder":"s"}],"no_clock":"maybe"`, `,"carriers":[{"folders":"s"}]`,
	} {
		if err := good(bad); err == nil {
			t.Errorf("%s is taken", bad)
		}
	}
}
