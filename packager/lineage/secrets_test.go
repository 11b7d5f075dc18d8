package lineage

import (
	"strings"
	"testing"
	"unicode/utf8"
)

// Each secret is s3cret... or has the form of its issuer; what is masked has none of it, what is no secret stays as it is.
func TestMask(t *testing.T) {
	const s = "s3cretS3cretS3cret00"
	for _, c := range [][3]string{
		{"db_password", s, Masked},
		{"AWS_SECRET_ACCESS_KEY", s, Masked},
		{"wandb.api-key", "x", Masked},
		{"hf_token", s, Masked},
		{"TOKEN", s, Masked},
		{"dsn", "postgres://user:" + s + "@db.example/x", "postgres://" + Masked + "@db.example/x"},
		{"command", "train --api-key " + s + " --epochs 3", "train --api-key " + Masked + " --epochs 3"},
		{"command", "DB_PASSWORD='" + s + " x' python train.py", "DB_PASSWORD=" + Masked + " python train.py"},
		{"config", `{"lr": 0.1, "client_secret": "` + s + `", "n": 2}`, `{"lr": 0.1, "client_secret": ` + Masked + `, "n": 2}`},
		{"note", "key " + "AKIA" + strings.Repeat("A", 16) + " of it", "key " + Masked + " of it"},
		{"note", "ghp_" + strings.Repeat("a", 36), Masked},
		{"note", "-----BEGIN " + "EC PRIVATE KEY-----\nabc\n-----END EC PRIVATE KEY-----\n", Masked},
		{"header", "Bearer eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJhYmMifQ.abc", "Bearer " + Masked},

		{"max_tokens", "512", "512"},
		{"tokenizer", "bert-base-uncased-whole", "bert-base-uncased-whole"},
		{"pad_token", "<|endoftext|>", "<|endoftext|>"},
		{"eos_token", "</s>", "</s>"},
		{"lr", "0.1", "0.1"},
		{"uri", "https://user@example.com/a:b@c", "https://user@example.com/a:b@c"},
		{"commit", strings.Repeat("a", 40), strings.Repeat("a", 40)},
		{"password", "", ""},
		{"passenger_class", "first", "first"},
	} {
		if got := Mask(c[0], c[1]); got != c[2] {
			t.Errorf("%s: %q, want %q", c[0], got, c[2])
		}
	}
	// Check is what everything goes through that a source says; what it did not see still has the secret.
	m := Source{Facts: []Fact{{"command", "train --password " + s}}, Params: []Fact{{"password", s}}}
	if m.Params[0].Value != s {
		t.Fatal("nothing to mask")
	}
	if err := m.Check(); err != nil || m.Params[0].Value != Masked || strings.Contains(m.Facts[0].Value, s) {
		t.Errorf("%+v, %v", m, err)
	}
}

func FuzzMask(f *testing.F) {
	f.Add("password", "x")
	f.Add("command", "a --api-key 'b c' https://u:p@h/ -----BEGIN PRIVATE KEY-----")
	f.Fuzz(func(t *testing.T, name, value string) {
		got := Mask(name, value)
		if utf8.ValidString(value) && !utf8.ValidString(got) {
			t.Errorf("%q becomes %q", value, got)
		}
		if value != "" && strings.EqualFold(name, "password") && got != Masked {
			t.Errorf("%q is shown as %q", value, got)
		}
	})
}
