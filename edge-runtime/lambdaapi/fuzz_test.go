package lambdaapi

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"net/http"
	"strings"
	"testing"
)

// FuzzMapEvent: whatever arrives, there is a request or a reason, and an answer in valid JSON that carries the handler's bytes.
func FuzzMapEvent(f *testing.F) {
	for _, s := range []string{
		`{"inputs":[]}`, `{"model_name":"a","inputs":[{}]}`, `null`, `[]`, `{`, `{"httpMethod":"POST","path":"/v2/models/m/infer","body":"e30=","isBase64Encoded":true}`,
		`{"httpMethod":"GET","path":"/","requestContext":{"elb":{"targetGroupArn":"x"}},"multiValueHeaders":{"a":["b"]},"queryStringParameters":{"q":"%zz"}}`,
		`{"version":"2.0","rawPath":"/prod/v2","rawQueryString":"a=b","cookies":["c=d"],"headers":{"host":"h"},"requestContext":{"stage":"prod","http":{"method":"GET","sourceIp":"::1"}}}`,
	} {
		f.Add([]byte(s), []byte(`{"ok":true}`), true)
		f.Add([]byte(s), []byte{0xff, 0, 1}, false)
	}
	f.Fuzz(func(t *testing.T, payload, body []byte, text bool) {
		form, r, err := mapEvent(context.Background(), &event{id: "i", trace: "t", payload: payload}, func() (string, error) { return "m", nil })
		if (r == nil) == (err == nil) {
			t.Fatalf("%v and %v", r, err)
		}
		a := answer{}
		if err != nil {
			a = form.refuse(err)
		} else {
			if !strings.HasPrefix(r.URL.Path, "/") || r.URL.RequestURI() == "" {
				t.Fatalf("path %q", r.URL.Path)
			}
			w := &recorder{header: http.Header{"Content-Type": {"application/octet-stream"}}}
			if text {
				w.header.Set("Content-Type", "application/json")
			}
			_, _ = w.Write(body)
			a = form.answer(w, r.Method == http.MethodHead)
		}
		if a.fault != nil {
			if form != formPlain || a.fault.Type == "" {
				t.Fatalf("form %d fails with %+v", form, a.fault)
			}
			return
		}
		if !json.Valid(a.body) {
			t.Fatalf("the answer is %q", a.body)
		}
		if form == formPlain || err != nil || r.Method == http.MethodHead {
			return
		}
		var h httpAnswer
		if err := json.Unmarshal(a.body, &h); err != nil {
			t.Fatal(err)
		}
		got := []byte(h.Body)
		if h.Base64 {
			got, err = base64.StdEncoding.DecodeString(h.Body)
		}
		if err != nil || string(got) != string(body) {
			t.Fatalf("%q became %q (%v)", body, got, err)
		}
	})
}

func BenchmarkPlainEvent(b *testing.B) {
	payload := []byte(`{"inputs":[{"name":"x","shape":[1,1000],"datatype":"FP32","data":[` + strings.Repeat("0.5,", 999) + `0.5]}]}`)
	b.SetBytes(int64(len(payload)))
	for b.Loop() {
		if _, _, err := mapEvent(context.Background(), &event{id: "i", payload: payload}, func() (string, error) { return "m", nil }); err != nil {
			b.Fatal(err)
		}
	}
}
