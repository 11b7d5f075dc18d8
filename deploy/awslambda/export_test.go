package awslambda

import "testing"

// BundleSha is what Lambda calls CodeSha256 of a bundle.
func BundleSha(tb testing.TB, dir string) string {
	tb.Helper()
	c, err := zipped(dir)
	if err != nil {
		tb.Fatal(err)
	}
	return c.sha
}
