package lock_test

import (
	"bufio"
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/service/s3"

	"github.com/waybill-ml/waybill/oci/publish/lock"
	"github.com/waybill-ml/waybill/oci/publish/lock/gitlock"
	"github.com/waybill-ml/waybill/oci/publish/lock/s3lock"
	"github.com/waybill-ml/waybill/oci/registry"
	"github.com/waybill-ml/waybill/oci/registry/servertest"
)

// needs finds a program that not every machine has.
func needs(t *testing.T, name string) string {
	t.Helper()
	p, err := exec.LookPath(name)
	if err != nil {
		if os.Getenv("WAYBILL_REQUIRE_TOOLS") != "" {
			t.Fatalf("%s is not installed", name)
		}
		t.Skipf("%s is not installed", name)
	}
	return p
}

// backend opens further handles, as other machines would, on one lock.
type backend func(t *testing.T) lock.Register

func backends() map[string]func(t *testing.T) backend {
	return map[string]func(t *testing.T) backend{"memory": memory, "registry": tagged, "git": gitRef, "s3": bucket}
}

// mem is the simplest register; lose makes it forget to answer.
type mem struct {
	mu    sync.Mutex
	n     int
	value []byte
	lose  atomic.Int32
}

func (m *mem) version() string {
	if m.n == 0 {
		return ""
	}
	return fmt.Sprint(m.n)
}

func (m *mem) Load(context.Context) ([]byte, string, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.value, m.version(), nil
}

func (m *mem) Swap(_ context.Context, version string, value []byte) (string, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if version != m.version() {
		return "", lock.ErrMoved
	}
	m.n++
	m.value = append([]byte{}, value...)
	if m.lose.Add(-1) >= 0 {
		return "", fmt.Errorf("%w: the answer was lost and the client asked again", lock.ErrMoved)
	}
	return m.version(), nil
}

func memory(*testing.T) backend {
	m := &mem{}
	return func(*testing.T) lock.Register { return m }
}

// tagged is a tag of the embedded registry, over http.
func tagged(t *testing.T) backend {
	s := servertest.Start(t, servertest.Options{Kind: servertest.Embedded})
	return func(t *testing.T) lock.Register {
		t.Helper()
		ref, err := registry.ParseRef(s.Host + "/ops/locks")
		if err != nil {
			t.Fatal(err)
		}
		p, err := registry.Open(t.Context(), ref, registry.Options{})
		if err != nil {
			t.Fatal(err)
		}
		return lock.Tag(p, lock.Name("ml/churn", "prod"))
	}
}

// gitRef is a ref of a bare repository, through the real git.
func gitRef(t *testing.T) backend {
	needs(t, "git")
	t.Setenv("GIT_CONFIG_GLOBAL", os.DevNull)
	t.Setenv("GIT_CONFIG_NOSYSTEM", "1")
	dir := filepath.Join(t.TempDir(), "locks.git")
	if out, err := exec.Command("git", "init", "-q", "--bare", dir).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	u, err := lock.Parse("git+file://" + filepath.ToSlash(dir) + "#refs/waybill/locks")
	if err != nil {
		t.Fatal(err)
	}
	return func(t *testing.T) lock.Register {
		t.Helper()
		r, err := gitlock.Open(t.Context(), u, lock.Name("ml/churn", "prod"))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := r.Close(); err != nil {
				t.Error(err)
			}
		})
		return r
	}
}

// bucket is an object in moto's S3. moto compares and writes in two steps, which S3 does in one, so its requests come one by one.
func bucket(t *testing.T) backend { return bucketBehind(t, func(*http.Request) {}) }

func bucketBehind(t *testing.T, edit func(*http.Request)) backend {
	endpoint := moto(t)
	target, err := url.Parse(endpoint)
	if err != nil {
		t.Fatal(err)
	}
	var one sync.Mutex
	proxy := httputil.NewSingleHostReverseProxy(target)
	front := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		one.Lock()
		defer one.Unlock()
		edit(r)
		proxy.ServeHTTP(w, r)
	}))
	t.Cleanup(front.Close)
	for k, v := range map[string]string{
		"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_REGION": "us-east-1", "AWS_EC2_METADATA_DISABLED": "true", "AWS_PROFILE": "",
		"AWS_CONFIG_FILE": filepath.Join(t.TempDir(), "none"), "AWS_SHARED_CREDENTIALS_FILE": filepath.Join(t.TempDir(), "none"), "NO_PROXY": "127.0.0.1",
	} {
		t.Setenv(k, v)
	}
	cfg, err := config.LoadDefaultConfig(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	c := s3.NewFromConfig(cfg, func(o *s3.Options) { o.BaseEndpoint, o.UsePathStyle = aws.String(endpoint), true })
	if _, err := c.CreateBucket(t.Context(), &s3.CreateBucketInput{Bucket: aws.String("locks")}); err != nil {
		t.Fatal(err)
	}
	u, err := lock.Parse("s3://locks/waybill?region=us-east-1&endpoint=" + url.QueryEscape(front.URL))
	if err != nil {
		t.Fatal(err)
	}
	return func(t *testing.T) lock.Register {
		t.Helper()
		r, err := s3lock.Open(t.Context(), u, lock.Name("ml/churn", "prod"))
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
}

// moto starts the S3 of moto and gives its address.
func moto(t *testing.T) string {
	t.Helper()
	cmd := exec.Command(needs(t, "moto_server"), "-H", "127.0.0.1", "-p", "0")
	out, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stdout = cmd.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	addr := make(chan string, 1)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		re := regexp.MustCompile(`Running on (http://[0-9.:]+)`)
		s := bufio.NewScanner(out)
		for s.Scan() {
			if m := re.FindStringSubmatch(s.Text()); m != nil {
				select {
				case addr <- m[1]:
				default:
				}
			}
		}
	}()
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
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

// What a register promises, on each backend.
func TestRegisters(t *testing.T) {
	for name, open := range backends() {
		t.Run(name, func(t *testing.T) {
			b := open(t)
			r := b(t)
			ctx := t.Context()
			if v, ver, err := r.Load(ctx); err != nil || ver != "" || v != nil {
				t.Fatalf("empty: %q %q %v", v, ver, err)
			}
			if _, err := r.Swap(ctx, strings.Repeat("1", 40), []byte(`{"a":0}`)); err == nil {
				t.Fatal("moved from a version that never was")
			}
			one, err := r.Swap(ctx, "", []byte(`{"a":1}`))
			if err != nil || one == "" {
				t.Fatal(one, err)
			}
			other := b(t)
			if v, ver, err := other.Load(ctx); err != nil || ver != one || string(v) != `{"a":1}` {
				t.Fatalf("%q %q %v, want %q", v, ver, err, one)
			}
			if _, err := other.Swap(ctx, "", []byte(`{"a":2}`)); !moved(err) {
				t.Fatalf("created twice: %v", err)
			}
			two, err := other.Swap(ctx, one, []byte(`{"a":3}`))
			if err != nil || two == one {
				t.Fatal(two, err)
			}
			if _, err := r.Swap(ctx, one, []byte(`{"a":4}`)); !moved(err) {
				t.Fatalf("moved from an old version: %v", err)
			}
			if v, ver, err := r.Load(ctx); err != nil || ver != two || string(v) != `{"a":3}` {
				t.Fatalf("%q %q %v", v, ver, err)
			}
			// Many at once: exactly one comes through.
			const n = 8
			var wg sync.WaitGroup
			var won atomic.Int32
			for i := range n {
				h := b(t)
				wg.Go(func() {
					_, err := h.Swap(ctx, two, fmt.Appendf(nil, `{"b":%d}`, i))
					if err == nil {
						won.Add(1)
					} else if !moved(err) {
						t.Error(err)
					}
				})
			}
			wg.Wait()
			if won.Load() != 1 {
				t.Errorf("%d of %d moved it from one version", won.Load(), n)
			}
		})
	}
}

// A service that ignores conditions is found out before anybody relies on it.
func TestServicesWithoutConditions(t *testing.T) {
	b := bucketBehind(t, func(r *http.Request) {
		r.Header.Del("If-None-Match")
		r.Header.Del("If-Match")
	})
	if _, err := b(t).Swap(t.Context(), "", []byte(`{}`)); err == nil || !strings.Contains(err.Error(), "ignores the conditions") {
		t.Fatalf("got %v", err)
	}
}

func TestRegistryWithoutConditions(t *testing.T) {
	needs(t, "docker-registry")
	s := servertest.Start(t, servertest.Options{Kind: servertest.DockerRegistry})
	ref, err := registry.ParseRef(s.Host + "/ops/locks")
	if err != nil {
		t.Fatal(err)
	}
	p, err := registry.Open(t.Context(), ref, registry.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := lock.Tag(p, "x").Swap(t.Context(), "", []byte(`{}`)); err == nil || !strings.Contains(err.Error(), "holds no lock") {
		t.Fatalf("got %v", err)
	}
	if tags, err := p.Tags(t.Context()); err == nil && len(tags) > 0 {
		t.Errorf("left behind: %v", tags)
	}
}
