package redact

import (
	"strings"
	"testing"
)

func TestText(t *testing.T) {
	const s = "S3cr3t-hunter2-abcdef"
	hidden := []string{
		"Get \"https://user:" + s + "@reg.example/v2/\": refused",
		"https://" + s + "@reg.example/v2/",
		"Authorization: Bearer " + s,
		`"Authorization":"Basic ` + s + `=="`,
		"header authorization=Basic " + s,
		"Proxy-Authorization: Basic " + s,
		"sent Bearer " + s,
		"GET https://blobs.example/x?sig=" + s + "&se=2026",
		"GET https://blobs.example/x?a=1&X-Amz-Signature=" + s,
		"GET https://blobs.example/x?X-Amz-Security-Token=" + s + "&b=2",
		"https://auth.example/token?access_token=" + s,
		`{"token":"` + s + `","expires_in":300}`,
		"password: " + s,
		"passphrase=" + s,
		"pkcs11:token=waybill;object=device?pin-value=" + s,
		"-----BEGIN PRIVATE KEY-----\n" + s + "\n-----END PRIVATE KEY-----",
		"-----BEGIN EC PRIVATE KEY-----\n" + s,
	}
	for _, h := range hidden {
		if got := (*Redactor)(nil).Text(h); strings.Contains(got, s) {
			t.Errorf("%q keeps the secret: %q", h, got)
		}
	}
	if got := New("", "ab", s).Text("the registry said: no such user " + s + ", abc"); got != "the registry said: no such user ***, abc" {
		t.Errorf("a known value: %q", got)
	}
	if got := New("abcdef", "abcdefgh").Text("abcdefgh"); got != Mask {
		t.Errorf("a value within another: %q", got)
	}
	for _, plain := range []string{
		"latency budget: p99 41ms over 5ms in 300 requests",
		"basic authentication is needed", "the bearer of the key", "record sha256:0b77d5a6f3c4 expired",
		"Get \"http://reg.example:5000/v2/ml/churn/manifests/channel-prod\": dial tcp 127.0.0.1:5000: connection refused",
		"mail to ops@reg.example", "wrong-signer: signed by key 4f2a, which is not a deployer for \"churn\"",
	} {
		if got := (*Redactor)(nil).Text(plain); got != plain {
			t.Errorf("%q became %q", plain, got)
		}
	}
}

func FuzzText(f *testing.F) {
	f.Add("https://u:p@h/?token=x", "p")
	f.Fuzz(func(t *testing.T, s, v string) {
		if len(v) >= shortest && strings.Contains(New(v).Text(s), v) && !strings.Contains(Mask, v) && !strings.Contains(v, Mask) {
			// A replacement may join its neighbours to the value again; only mask characters could do that.
			if !strings.Contains(v, "*") {
				t.Errorf("%q still holds %q", New(v).Text(s), v)
			}
		}
	})
}
