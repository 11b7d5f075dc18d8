package demo

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"time"
)

// tolerance is how near the device's answers must be to scikit-learn's own.
const tolerance = 1e-6

// repeats is how often the 64 golden rows stand in one request: work enough that a slow model shows above the noise of a
// busy machine.
const repeats = 32

// answer is what scikit-learn said about the golden rows.
type answer struct {
	label []float64
	prob  []float64
}

// rows are the golden rows of the example with the answers of each version.
type rows struct {
	x       []float64
	n       int
	answers map[string]answer // by version folder
	small   []byte            // a request of all rows
	large   []byte            // a request of repeats times all rows
}

type tensor struct {
	Name     string    `json:"name"`
	Datatype string    `json:"datatype"`
	Shape    []int     `json:"shape"`
	Data     []float64 `json:"data"`
}

func readRows(dir string) (rows, error) {
	r := rows{answers: map[string]answer{}}
	for _, v := range []string{"v1", "v2", "v3"} {
		b, err := os.ReadFile(filepath.Join(dir, v, "golden.json"))
		if err != nil {
			return r, err
		}
		var g struct {
			Vectors []struct{ Inputs, Reference []tensor }
		}
		if err := json.Unmarshal(b, &g); err != nil {
			return r, err
		}
		var a answer
		r.x, r.n = nil, 0
		for _, vec := range g.Vectors {
			r.x = append(r.x, vec.Inputs[0].Data...)
			r.n += vec.Inputs[0].Shape[0]
			a.label = append(a.label, vec.Reference[0].Data...)
			a.prob = append(a.prob, vec.Reference[1].Data...)
		}
		r.answers[v] = a
	}
	r.small, r.large = r.request(1), r.request(repeats)
	return r, nil
}

func (r rows) request(times int) []byte {
	var x []float64
	for range times {
		x = append(x, r.x...)
	}
	b, err := json.Marshal(map[string]any{"inputs": []tensor{{"X", "FP32", []int{r.n * times, len(r.x) / r.n}, x}}})
	if err != nil {
		panic(err) // numbers and strings always encode
	}
	return b
}

// reply is a device's answer, with the digest of the artifact that gave it.
type reply struct {
	digest  string
	label   []float64
	prob    []float64
	version string
}

func post(ctx context.Context, c *http.Client, url string, body []byte) (reply, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(body))
	if err != nil {
		return reply{}, err
	}
	req.Header.Set("Content-Type", "application/json")
	res, err := c.Do(req)
	if err != nil {
		return reply{}, err
	}
	defer res.Body.Close()
	b, err := io.ReadAll(io.LimitReader(res.Body, 64<<20))
	if err != nil {
		return reply{}, err
	}
	if res.StatusCode != http.StatusOK {
		return reply{}, fmt.Errorf("status %d: %.200s", res.StatusCode, b)
	}
	var v struct {
		Version string   `json:"model_version"`
		Outputs []tensor `json:"outputs"`
	}
	if err := json.Unmarshal(b, &v); err != nil {
		return reply{}, err
	}
	out := reply{digest: res.Header.Get("Waybill-Digest"), version: v.Version}
	for _, o := range v.Outputs {
		switch o.Name {
		case "label":
			out.label = o.Data
		case "probabilities":
			out.prob = o.Data
		}
	}
	return out, nil
}

// compare returns the largest difference from scikit-learn's probabilities; another label or length is an error.
func (r rows) compare(got reply, v string) (float64, error) {
	want, ok := r.answers[v]
	if !ok {
		return 0, fmt.Errorf("there are no answers of %s to compare with", v)
	}
	if len(got.label) == 0 || len(got.label)%len(want.label) != 0 || len(got.prob) != 2*len(got.label) {
		return 0, fmt.Errorf("%d labels and %d probabilities came for %d rows", len(got.label), len(got.prob), len(want.label))
	}
	worst := 0.0
	for i, l := range got.label {
		j := i % len(want.label)
		if l != want.label[j] {
			return 0, fmt.Errorf("row %d: label %g, scikit-learn says %g", j+1, l, want.label[j])
		}
		for k := range 2 {
			d := math.Abs(got.prob[2*i+k] - want.prob[2*j+k])
			if !(d <= tolerance) {
				return 0, fmt.Errorf("row %d: probability %.9g, scikit-learn says %.9g", j+1, got.prob[2*i+k], want.prob[2*j+k])
			}
			worst = math.Max(worst, d)
		}
	}
	return worst, nil
}

// client keeps sending requests and checks every answer against the framework's own for the version that gave it.
type client struct {
	cancel  context.CancelFunc
	wg      sync.WaitGroup
	mu      sync.Mutex
	total   int
	failed  int
	first   error             // of the failures
	by      map[string]int    // answers by version folder
	digests map[string]string // that they named
	worst   float64
}

// clients send at the same time.
const clients = 2

func (w *world) startClient() *client {
	ctx, cancel := context.WithCancel(context.Background())
	c := &client{cancel: cancel, by: map[string]int{}, digests: map[string]string{}}
	h := &http.Client{Timeout: 30 * time.Second, Transport: &http.Transport{MaxIdleConnsPerHost: clients}}
	for range clients {
		c.wg.Go(func() {
			for ctx.Err() == nil {
				got, err := post(ctx, h, w.infer(), w.rows.large)
				if ctx.Err() != nil {
					return // cut off by us, not failed
				}
				var d float64
				if err == nil {
					d, err = w.rows.compare(got, folderOf(got.version))
				}
				c.mu.Lock()
				c.total++
				if err != nil {
					c.failed++
					if c.first == nil {
						c.first = err
					}
				} else {
					c.by[folderOf(got.version)]++
					c.digests[folderOf(got.version)] = got.digest
					c.worst = math.Max(c.worst, d)
				}
				c.mu.Unlock()
				time.Sleep(25 * time.Millisecond)
			}
		})
	}
	return c
}

// folderOf maps a version to the folder of the example: "2.0.0" to v2.
func folderOf(version string) string {
	if version == "" {
		return ""
	}
	return "v" + version[:1]
}

// stop ends the client; it fails when a single request failed, or was answered by a digest that is not the version's.
func (c *client) stop(w *world) error {
	c.cancel()
	c.wg.Wait()
	if c.total == 0 {
		return fmt.Errorf("the client sent no request")
	}
	if c.failed > 0 {
		return fmt.Errorf("%d of %d requests failed: %w", c.failed, c.total, c.first)
	}
	for v, d := range c.digests {
		if d != w.digests[v] {
			return fmt.Errorf("%s answered as %s, its digest is %s", v, d, w.digests[v])
		}
	}
	return nil
}

func (c *client) count(v string) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.by[v]
}

func (w *world) infer() string { return w.api + "/v2/models/" + model + "/infer" }
