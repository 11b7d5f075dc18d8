package sagemaker

import (
	"archive/tar"
	"bufio"
	"bytes"
	"compress/gzip"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/waybill-ml/waybill/internal/diag"
	"github.com/waybill-ml/waybill/packager/lineage"
)

const event1 = `{"version": "0", "source": "aws.sagemaker", "detail-type": "SageMaker Model Package State Change", "region": "eu-central-1",
 "time": "2026-05-01T08:00:00Z", "detail": {"ModelPackageName": "churn/3", "ModelPackageGroupName": "churn", "ModelPackageVersion": 3,
 "ModelPackageArn": "arn:aws:sagemaker:eu-central-1:123456789012:model-package/churn/3", "ModelPackageStatus": "Completed",
 "ModelApprovalStatus": "Approved", "InferenceSpecification": {"Containers": [{"Image": "x", "ModelDataUrl": "s3://models/churn/model.tar.gz"}]},
 "ModelMetrics": {"ModelQuality": {"Statistics": {"ContentType": "application/json", "S3Uri": "s3://models/churn/statistics.json"}}},
 "CustomerMetadataProperties": {"lr": "0.1"}, "MetadataProperties": {"CommitId": "abc"}}}`

func TestEvent(t *testing.T) {
	a, err := parseEvent([]byte(event1))
	if err != nil {
		t.Fatal(err)
	}
	if a.name != "churn" || a.version != "3" || a.region != "eu-central-1" || a.model.String() != "s3://models/churn/model.tar.gz" ||
		a.URI != "arn:aws:sagemaker:eu-central-1:123456789012:model-package/churn/3" || a.metrics == nil || len(a.Params) != 1 {
		t.Errorf("%+v", a)
	}
	for _, c := range []struct {
		old, now string
		code     diag.Code
	}{
		{`"Approved"`, `"PendingManualApproval"`, diag.Denied},
		{`"Approved"`, `"Rejected"`, diag.Denied},
		{`"Approved"`, `"approved"`, diag.Denied},
		{`"Completed"`, `"InProgress"`, diag.Denied},
		{`aws.sagemaker`, `my.app`, diag.Usage},
		{`Model Package State`, `Endpoint State`, diag.Usage},
		{`arn:aws:sagemaker`, `arn:aws:s3`, diag.Usage},
		{`s3://models/churn/model`, `https://models/churn/model`, diag.Usage},
		{`s3://models/churn/stat`, `file:///`, diag.Usage},
		{`"ModelDataUrl": "s3://models/churn/model.tar.gz"`, `"ModelDataSource": {}`, diag.Unsupported},
		{`"Containers": [`, `"Containers": [{},`, diag.Unsupported},
		{`{"version"`, `{{`, diag.Usage},
	} {
		text := strings.Replace(event1, c.old, c.now, 1)
		if text == event1 {
			t.Fatalf("%s is not in the event", c.old)
		}
		if _, err := parseEvent([]byte(text)); diag.CodeOf(err) != c.code || err == nil {
			t.Errorf("%s: %v", c.now, err)
		}
	}
}

type item struct {
	name, text string
	kind       byte
}

func archive(t *testing.T, items ...item) []byte {
	t.Helper()
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	w := tar.NewWriter(z)
	for _, i := range items {
		h := &tar.Header{Name: i.name, Typeflag: i.kind, Mode: 0o600, Size: int64(len(i.text)), Format: tar.FormatUSTAR}
		if i.kind == 0 {
			h.Typeflag = tar.TypeReg
		} else {
			h.Size, h.Linkname = 0, i.text
		}
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if i.kind == 0 {
			if _, err := w.Write([]byte(i.text)); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

const booster = "tree\nversion=v4\nnum_class=1\n"

func TestUnpack(t *testing.T) {
	for _, c := range []struct {
		why   string
		b     []byte
		entry string
		code  diag.Code
	}{
		{"one model", archive(t, item{name: "./code/run.py", text: "x"}, item{name: "./m.txt", text: booster}), "m.txt", diag.OK},
		{"no archive", []byte(booster), "model.tar.gz", diag.OK},
		{"two models", archive(t, item{name: "a.txt", text: booster}, item{name: "b.txt", text: booster}), "", diag.Unsupported},
		{"a pickle", archive(t, item{name: "xgboost-model", text: "\x80\x04."}), "", diag.Unsupported},
		{"out of the folder", archive(t, item{name: "../m.txt", text: booster}), "", diag.Failure},
		{"an absolute name", archive(t, item{name: "/m.txt", text: booster}), "", diag.Failure},
		{"a link", archive(t, item{name: "m.txt", text: "/etc/passwd", kind: tar.TypeSymlink}), "", diag.Failure},
		{"twice", archive(t, item{name: "m.txt", text: booster}, item{name: "m.txt", text: booster}), "", diag.Failure},
		{"too much", archive(t, item{name: "m.txt", text: booster + strings.Repeat("x", 2000)}), "", diag.Failure},
		{"cut off", archive(t, item{name: "m.txt", text: booster})[:60], "", diag.Failure},
	} {
		dir := filepath.Join(t.TempDir(), "in")
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		got, err := unpack(t.Context(), bytes.NewReader(c.b), "model.tar.gz", dir, 1000)
		if got != c.entry || diag.CodeOf(err) != c.code {
			t.Errorf("%s: %q, %v", c.why, got, err)
		}
		if list, err := os.ReadDir(filepath.Dir(dir)); err != nil || len(list) != 1 {
			t.Errorf("%s: written beside the folder: %v, %v", c.why, list, err)
		}
	}
}

// moto starts the S3 of moto and gives its address.
func moto(t *testing.T) string {
	t.Helper()
	program, err := exec.LookPath("moto_server")
	if err != nil {
		if os.Getenv("WAYBILL_REQUIRE_TOOLS") != "" {
			t.Fatal("moto_server is not installed")
		}
		t.Skip("moto_server is not installed")
	}
	cmd := exec.Command(program, "-H", "127.0.0.1", "-p", "0")
	out, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stdout = cmd.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	addr, ended := make(chan string, 1), make(chan struct{})
	go func() {
		defer close(ended)
		re := regexp.MustCompile(`Running on (http://[0-9.:]+)`)
		for s := bufio.NewScanner(out); s.Scan(); {
			if m := re.FindStringSubmatch(s.Text()); m != nil {
				select {
				case addr <- m[1]:
				default:
				}
			}
		}
	}()
	t.Cleanup(func() {
		_ = cmd.Process.Kill() // it may have ended
		<-ended
		_ = cmd.Wait()
	})
	select {
	case a := <-addr:
		return a
	case <-ended:
		t.Fatal("moto_server ended")
	case <-time.After(2 * time.Minute):
		t.Fatal("moto_server does not start")
	}
	return ""
}

// The approved model comes out of a real S3 protocol, through the SDK.
func TestOpen(t *testing.T) {
	at := moto(t)
	for k, v := range map[string]string{
		"AWS_ENDPOINT_URL_S3": at, "AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b", "AWS_CONFIG_FILE": os.DevNull,
		"AWS_SHARED_CREDENTIALS_FILE": os.DevNull, "AWS_EC2_METADATA_DISABLED": "true", "AWS_MAX_ATTEMPTS": "1", "AWS_PROFILE": "", "AWS_SESSION_TOKEN": "",
	} {
		t.Setenv(k, v)
	}
	put := func(key string, b []byte) {
		t.Helper()
		r, err := http.NewRequestWithContext(t.Context(), http.MethodPut, at+"/models"+key, bytes.NewReader(b))
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Authorization", "AWS4-HMAC-SHA256 Credential=a/20260101/eu-central-1/s3/aws4_request, SignedHeaders=host, Signature=x")
		resp, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		if resp.StatusCode != http.StatusOK {
			t.Fatalf("put %q: %s", key, resp.Status)
		}
	}
	model := archive(t, item{name: "m.txt", text: booster})
	put("", []byte(`<CreateBucketConfiguration xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><LocationConstraint>eu-central-1</LocationConstraint></CreateBucketConfiguration>`))
	put("/churn/model.tar.gz", model)
	put("/churn/statistics.json", []byte(`{"binary_classification_metrics": {"auc": {"value": 0.97, "standard_deviation": "NaN"}, "confusion_matrix": {"0": {}}}, "version": 0.0}`))
	file := filepath.Join(t.TempDir(), "event.json")
	open := func(text string) (*lineage.Model, error) {
		t.Helper()
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return Open(t.Context(), file, t.TempDir())
	}
	m, err := open(event1)
	if err != nil {
		t.Fatal(err)
	}
	if err := m.Check(); err != nil {
		t.Error(err)
	}
	if m.Entry != "m.txt" || len(m.Files) != 1 || m.Files[0].SHA256 != lineage.FileOf("", model).SHA256 || m.Files[0].Size != int64(len(model)) {
		t.Errorf("%+v", m)
	}
	if got := fmt.Sprint(m.Metrics); got != "[{binary_classification_metrics.auc 0.97}]" {
		t.Errorf("metrics %s", got)
	}
	if _, err := open(strings.Replace(event1, "churn/model.tar.gz", "churn/absent", 1)); diag.CodeOf(err) != diag.NotFound {
		t.Errorf("no such object: %v", err)
	}
}

func FuzzEvent(f *testing.F) {
	f.Add([]byte(event1))
	f.Fuzz(func(t *testing.T, b []byte) {
		a, err := parseEvent(b)
		if (a == nil) == (err == nil) {
			t.Fatalf("%v, %v", a, err)
		}
		if a != nil && !bytes.Contains(b, []byte("pproved")) && !bytes.Contains(b, []byte(`\u`)) {
			t.Error("not approved")
		}
		_, _ = parseMetrics(b) // must only not panic
	})
}

func FuzzUnpack(f *testing.F) {
	f.Add([]byte(booster))
	f.Add([]byte("\x1f\x8b\x08"))
	f.Fuzz(func(t *testing.T, b []byte) {
		dir := filepath.Join(t.TempDir(), "in")
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		_, _ = unpack(t.Context(), bytes.NewReader(b), "m", dir, 1<<20)
		if list, err := os.ReadDir(filepath.Dir(dir)); err != nil || len(list) != 1 {
			t.Errorf("written beside the folder: %v, %v", list, err)
		}
	})
}
