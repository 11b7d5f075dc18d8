// Package s3lock keeps a lock in an S3 object, by conditional writes (If-None-Match and If-Match on PutObject). It needs
// s3:GetObject and s3:PutObject on the key and s3:ListBucket on the bucket (without it S3 says "forbidden" of what is not
// there), and never deletes anything.
package s3lock

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"path"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/smithy-go/logging"

	"github.com/waybill-ml/waybill/internal/diag"
	"github.com/waybill-ml/waybill/oci/publish/lock"
)

// Open gives the register of a lock. Credentials, region and endpoint come from where AWS tools look for them; u's region and
// endpoint win.
func Open(ctx context.Context, u lock.URI, name string) (lock.Register, error) {
	var opts []func(*config.LoadOptions) error
	if u.Region != "" {
		opts = append(opts, config.WithRegion(u.Region))
	}
	cfg, err := config.LoadDefaultConfig(ctx, opts...)
	if err != nil {
		return nil, diag.Wrap(diag.Failure, err, "lock %s: AWS configuration", u.Raw)
	}
	if cfg.Region == "" {
		return nil, diag.New(diag.Usage, "lock %s: which region the bucket is in is not known", u.Raw).Hint("s3://%s/%s?region=eu-central-1, or export AWS_REGION=eu-central-1", u.Bucket, u.Prefix)
	}
	client := s3.NewFromConfig(cfg, func(o *s3.Options) {
		if u.Endpoint != "" {
			o.BaseEndpoint = aws.String(u.Endpoint)
		}
		// The values are small and checked by who reads them; other services than Amazon's know few checksums.
		o.RequestChecksumCalculation = aws.RequestChecksumCalculationWhenRequired
		o.ResponseChecksumValidation = aws.ResponseChecksumValidationWhenRequired
		o.Logger = logging.Nop{}
		// Services of one's own rarely have a name per bucket.
		o.UsePathStyle = o.BaseEndpoint != nil
	})
	return &register{c: client, bucket: u.Bucket, key: path.Join(u.Prefix, name+".json")}, nil
}

type register struct {
	c           *s3.Client
	bucket, key string
	sure        bool // the service has been seen to refuse
}

// Load implements lock.Register; the version is the ETag.
func (r *register) Load(ctx context.Context) ([]byte, string, error) {
	out, err := r.c.GetObject(ctx, &s3.GetObjectInput{Bucket: &r.bucket, Key: &r.key})
	if status(err) == http.StatusNotFound && !strings.Contains(err.Error(), "NoSuchBucket") {
		return nil, "", nil
	}
	if err != nil {
		return nil, "", r.fail("read", err)
	}
	defer out.Body.Close()
	b, err := io.ReadAll(io.LimitReader(out.Body, lock.MaxValue))
	if err != nil {
		return nil, "", r.fail("read", err)
	}
	etag := aws.ToString(out.ETag)
	if etag == "" {
		return nil, "", r.fail("read", errors.New("the answer has no ETag"))
	}
	return b, etag, nil
}

// Swap implements lock.Register. Values differ in each renewal, so their ETags do.
func (r *register) Swap(ctx context.Context, version string, value []byte) (string, error) {
	in := &s3.PutObjectInput{Bucket: &r.bucket, Key: &r.key, Body: bytes.NewReader(value), ContentType: aws.String("application/json")}
	if version == "" {
		in.IfNoneMatch = aws.String("*")
	} else {
		in.IfMatch = &version
	}
	out, err := r.c.PutObject(ctx, in)
	switch status(err) {
	case http.StatusPreconditionFailed, http.StatusConflict: // 409: another conditional write was under way
		return "", fmt.Errorf("%w: %w", lock.ErrMoved, err)
	case http.StatusNotFound:
		if version != "" && !strings.Contains(err.Error(), "NoSuchBucket") {
			return "", fmt.Errorf("%w: %w", lock.ErrMoved, err) // deleted since
		}
	case http.StatusNotImplemented:
		return "", r.fail("write", fmt.Errorf("this service has no conditional writes, so it holds no lock: %w", err))
	}
	if err != nil {
		return "", r.fail("write", err)
	}
	etag := aws.ToString(out.ETag)
	if etag == "" || etag == version {
		return "", r.fail("write", errors.New("the answer has no new ETag"))
	}
	return etag, r.prove(ctx, value)
}

// prove writes what stands there once more on the condition that nothing does: a service that takes it knows no conditions and
// would give the lock to everybody who asks.
func (r *register) prove(ctx context.Context, value []byte) error {
	if r.sure {
		return nil
	}
	_, err := r.c.PutObject(ctx, &s3.PutObjectInput{
		Bucket: &r.bucket, Key: &r.key, Body: bytes.NewReader(value), ContentType: aws.String("application/json"), IfNoneMatch: aws.String("*"),
	})
	switch s := status(err); {
	case s == http.StatusPreconditionFailed || s == http.StatusConflict:
		r.sure = true
		return nil
	case err != nil:
		return r.fail("write", err)
	}
	return r.fail("write", errors.New("this service ignores the conditions of writes, so it holds no lock"))
}

func (r *register) fail(verb string, err error) error {
	return diag.Wrap(diag.Registry, err, "%s lock s3://%s/%s", verb, r.bucket, r.key).
		Hint("aws s3api head-object --bucket %s --key %s", r.bucket, r.key)
}

// status is the HTTP status of a refused request; 0 for anything else.
func status(err error) int {
	var re *awshttp.ResponseError
	if errors.As(err, &re) {
		return re.HTTPStatusCode()
	}
	return 0
}
