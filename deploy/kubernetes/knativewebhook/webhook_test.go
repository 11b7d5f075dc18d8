// Package knativewebhook holds what deploy/kubernetes writes to Knative against the defaults and the validation that Knative's own
// admission webhook runs. It is a Go module of its own: the libraries of Kubernetes are in no program of Waybill's.
package knativewebhook

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"knative.dev/pkg/apis"
	servingv1 "knative.dev/serving/pkg/apis/serving/v1"
)

// read gives a Service as the API server would take it: a member that the type does not have is an error.
func read(t *testing.T, raw []byte) *servingv1.Service {
	t.Helper()
	s := &servingv1.Service{}
	d := json.NewDecoder(bytes.NewReader(raw))
	d.DisallowUnknownFields()
	if err := d.Decode(s); err != nil {
		t.Fatalf("%v\n%s", err, raw)
	}
	return s
}

// admit is what the webhook does with a write; was is nil for a creation.
func admit(s, was *servingv1.Service) error {
	ctx := apis.WithinCreate(context.Background())
	if was != nil {
		ctx = apis.WithinUpdate(context.Background(), was)
	}
	ctx = apis.WithinParent(ctx, s.ObjectMeta)
	s.SetDefaults(ctx)
	if err := s.Validate(ctx); err != nil {
		return err
	}
	return nil
}

func bodies(t *testing.T) [][]byte {
	t.Helper()
	files, err := filepath.Glob("../testdata/knative/*.json")
	if err != nil || len(files) < 7 {
		t.Fatal(files, err)
	}
	var out [][]byte
	for _, f := range files { // sorted, in the order in which they are written
		raw, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, raw)
	}
	return out
}

func TestWebhookTakesWhatIsWritten(t *testing.T) {
	var was *servingv1.Service
	for i, raw := range bodies(t) {
		s := read(t, raw)
		if err := admit(s, was); err != nil {
			t.Errorf("write %d: %v", i+1, err)
		}
		was = s
	}
}

// The validation bites: without it nothing would be proven.
func TestWebhookRefuses(t *testing.T) {
	all := bodies(t)
	for name, edit := range map[string]func(s *servingv1.Service){
		"want: 100":      func(s *servingv1.Service) { n := int64(90); s.Spec.Traffic[0].Percent = &n },
		"metadata.name":  func(s *servingv1.Service) { s.Spec.Template.Name = "other-1" },
		"without a name": func(s *servingv1.Service) { s.Spec.Template.Spec.Containers[0].Image += "0" },
		"reserved": func(s *servingv1.Service) {
			s.Spec.Template.Spec.Containers[0].Env = []corev1.EnvVar{{Name: "PORT", Value: "1"}}
		},
		"serving.knative.dev": func(s *servingv1.Service) { s.Spec.Template.Annotations["serving.knative.dev/creator"] = "x" },
	} {
		was := read(t, all[0])
		if err := admit(was, nil); err != nil {
			t.Fatal(err)
		}
		s := read(t, all[0])
		edit(s)
		if err := admit(s, was); err == nil || !strings.Contains(strings.ToLower(err.Error()), strings.ToLower(strings.TrimPrefix(name, "want: "))) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
