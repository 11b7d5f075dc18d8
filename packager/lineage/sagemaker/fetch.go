package sagemaker

import (
	"archive/tar"
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path"
	"path/filepath"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/smithy-go/logging"

	"github.com/waybill-ml/waybill/internal/diag"
	"github.com/waybill-ml/waybill/oci/artifact"
	"github.com/waybill-ml/waybill/packager/frontend"
	"github.com/waybill-ml/waybill/packager/lineage"
)

// Bounds on an archive.
const (
	maxArchive = 16 << 30
	maxUnpack  = 64 << 30
	maxEntries = 10000
)

// Open reads the event in file and fetches the approved model into dir, an empty folder of the caller's. Credentials and endpoint
// come from where AWS tools look for them, the region from the event.
func Open(ctx context.Context, file, dir string) (*lineage.Model, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, diag.Wrap(diag.NotFound, err, "read the event")
	}
	b, err := lineage.ReadAll(f)
	_ = f.Close() // only read
	if err != nil {
		return nil, diag.Wrap(diag.Usage, err, "read the event %s", file)
	}
	a, err := parseEvent(b)
	if err != nil {
		return nil, err
	}
	cfg, err := config.LoadDefaultConfig(ctx, config.WithRegion(a.region))
	if err != nil {
		return nil, diag.Wrap(diag.Failure, err, "AWS configuration")
	}
	c := s3.NewFromConfig(cfg, func(o *s3.Options) {
		o.Logger = logging.Nop{}
		o.UsePathStyle = o.BaseEndpoint != nil // services of one's own rarely have a name per bucket
	})
	m := &lineage.Model{Source: a.Source, Name: a.name, Version: a.version}
	m.Document = lineage.FileOf("event", b)
	if a.metrics != nil {
		body, err := get(ctx, c, *a.metrics)
		if err != nil {
			return nil, err
		}
		b, err := lineage.ReadAll(body)
		_ = body.Close() // only read
		if err == nil {
			m.Metrics, err = parseMetrics(b)
		}
		if err != nil {
			return nil, diag.Wrap(diag.Usage, err, "metrics %s", a.metrics)
		}
		m.Add("metrics-url", a.metrics.String())
		m.Add("metrics-sha256", lineage.FileOf("", b).SHA256)
	}
	body, err := get(ctx, c, a.model)
	if err != nil {
		return nil, err
	}
	defer body.Close()
	data := filepath.Join(dir, "data")
	got, err := lineage.Copy(ctx, data, body, maxArchive)
	if err != nil {
		return nil, diag.Wrap(diag.Registry, err, "fetch %s", a.model)
	}
	got.Path, got.MD5 = a.model.String(), ""
	m.Files = append(m.Files, got)
	in, err := os.Open(data)
	if err != nil {
		return nil, fmt.Errorf("unpack: %w", err)
	}
	defer in.Close()
	to := filepath.Join(dir, "model")
	if err := os.Mkdir(to, 0o700); err != nil {
		return nil, fmt.Errorf("unpack: %w", err)
	}
	if m.Entry, err = unpack(ctx, in, path.Base(a.model.key), to, maxUnpack); err != nil {
		var d *diag.Error
		if errors.As(err, &d) || ctx.Err() != nil {
			return nil, err
		}
		return nil, diag.Wrap(diag.Usage, err, "unpack %s", a.model).Hint("aws s3 cp %s - | tar tzf -", a.model)
	}
	m.Tree = lineage.Folder{Dir: to}
	return m, nil
}

func get(ctx context.Context, c *s3.Client, o object) (io.ReadCloser, error) {
	out, err := c.GetObject(ctx, &s3.GetObjectInput{Bucket: aws.String(o.bucket), Key: aws.String(o.key)})
	if err == nil {
		return out.Body, nil
	}
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	hint := "aws s3 ls " + o.String()
	var re *awshttp.ResponseError
	if errors.As(err, &re) && re.HTTPStatusCode() == http.StatusNotFound {
		return nil, diag.Wrap(diag.NotFound, err, "%s does not exist", o).Hint("%s", hint)
	}
	return nil, diag.Wrap(diag.Registry, err, "fetch %s", o).Hint("%s   (needs s3:GetObject with the credentials that this command finds)", hint)
}

// unpack writes the files of an archive, tar with or without gzip, below dir, and tells which one is the model: the only one in a format
// that is compiled. What is no archive is the model itself.
func unpack(ctx context.Context, f io.Reader, name, dir string, limit int64) (string, error) {
	br := bufio.NewReaderSize(f, 1<<16)
	head, _ := br.Peek(512) // fewer when the file is shorter
	var r io.Reader = br
	switch {
	case bytes.HasPrefix(head, []byte{0x1f, 0x8b}):
		z, err := gzip.NewReader(br)
		if err != nil {
			return "", err
		}
		defer z.Close()
		r = z
	case len(head) < 512 || !bytes.HasPrefix(head[257:], []byte("ustar")):
		if err := artifact.CheckPath(name); err != nil {
			return "", err
		}
		_, err := lineage.Copy(ctx, filepath.Join(dir, name), br, limit)
		return name, err
	}
	left := limit
	var models, all []string
	t := tar.NewReader(r)
	for n := 0; ; n++ {
		h, err := t.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return "", err
		}
		if n == maxEntries {
			return "", fmt.Errorf("it has more than %d entries", maxEntries)
		}
		switch h.Typeflag {
		case tar.TypeDir:
			continue
		case tar.TypeReg:
		default:
			return "", fmt.Errorf("%q is neither a file nor a folder", h.Name)
		}
		name := strings.TrimPrefix(h.Name, "./")
		if err := artifact.CheckPath(name); err != nil {
			return "", err
		}
		at := filepath.Join(dir, filepath.FromSlash(name))
		got, err := lineage.Copy(ctx, at, t, left)
		if err != nil {
			return "", err
		}
		left -= got.Size
		all = append(all, name)
		format, err := detect(at)
		if err != nil {
			return "", err
		}
		switch format {
		case frontend.ONNX, frontend.XGBoost, frontend.LightGBM:
			models = append(models, name)
		}
	}
	switch {
	case len(models) == 1:
		return models[0], nil
	case len(models) > 1:
		return "", diag.New(diag.Unsupported, "the archive has several models: %s", strings.Join(models[:min(4, len(models))], ", ")).
			Hint("put the one that is meant into an archive of its own and register that")
	}
	return "", diag.New(diag.Unsupported, "the archive has no ONNX, XGBoost or LightGBM model: %s", strings.Join(all[:min(4, len(all))], ", ")).
		Line("a pickle, or what a framework loads by running code, is never loaded").
		Hint("python examples/export/sklearn_to_onnx.py model.joblib model.onnx   (xgboost_to_onnx.py, lightgbm_to_onnx.py, pytorch_to_onnx.py), then register an archive with model.onnx")
}

func detect(file string) (frontend.Format, error) {
	f, err := os.Open(file)
	if err != nil {
		return "", err
	}
	defer f.Close()
	head := make([]byte, frontend.HeadSize)
	n, err := io.ReadFull(f, head)
	if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
		return "", err
	}
	return frontend.Detect(head[:n], filepath.Base(file)), nil
}
