package mlflow

import (
	"context"
	"errors"
	"io/fs"
	"path/filepath"

	"github.com/waybill-ml/waybill/internal/diag"
	"github.com/waybill-ml/waybill/packager/lineage"
	"github.com/waybill-ml/waybill/packager/project"
)

// Folder reads a model's folder; nothing is asked of a server. from is how the user wrote it.
func Folder(ctx context.Context, dir, from string) (*lineage.Model, error) {
	t := lineage.Folder{Dir: dir}
	b, err := read(ctx, t)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, diag.New(diag.NotFound, "%s has no %s", from, File).Hint("--from mlflow:DIR takes the folder in which the file %s lies", File)
	}
	if err != nil {
		return nil, diag.Wrap(diag.Usage, err, "read %s of %s", File, from)
	}
	m, err := describe(b, from)
	if err != nil {
		return nil, err
	}
	m.Document = lineage.FileOf(File, b)
	m.Tree, m.Name = t, project.NameFor(filepath.Base(dir)+".x")
	return m, nil
}

func read(ctx context.Context, t lineage.Tree) ([]byte, error) {
	r, err := t.Open(ctx, File)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	return lineage.ReadAll(r)
}
