package demo

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ecr/types"
)

// printTable shows a repository with the columns of ECR's console, tagged images first, then the largest.
func printTable(w io.Writer, images []types.ImageDetail) error {
	slices.SortStableFunc(images, func(a, b types.ImageDetail) int {
		return cmp.Or(
			cmp.Compare(len(b.ImageTags), len(a.ImageTags)),
			cmp.Compare(aws.ToInt64(b.ImageSizeInBytes), aws.ToInt64(a.ImageSizeInBytes)),
			cmp.Compare(aws.ToString(a.ImageDigest), aws.ToString(b.ImageDigest)),
		)
	})
	t := tabwriter.NewWriter(w, 0, 0, 3, ' ', 0)
	fmt.Fprintln(t, "  IMAGE TAG\tTYPE\tSIZE (MB)\tDIGEST")
	for _, i := range images {
		fmt.Fprintf(t, "  %s\t%s\t%.2f\t%s\n", cmp.Or(strings.Join(i.ImageTags, ", "), "-"), kind(i), float64(aws.ToInt64(i.ImageSizeInBytes))/1e6, aws.ToString(i.ImageDigest))
	}
	return t.Flush()
}

// kind is the console's word for a media type.
func kind(i types.ImageDetail) string {
	switch m := aws.ToString(i.ImageManifestMediaType); {
	case strings.Contains(m, "index") || strings.Contains(m, "manifest.list"):
		return "Image Index"
	default:
		return "Image"
	}
}

// untagged counts what people wonder about.
func untagged(images []types.ImageDetail) (n int) {
	for _, i := range images {
		if len(i.ImageTags) == 0 && aws.ToInt64(i.ImageSizeInBytes) < 15_000 {
			n++
		}
	}
	return n
}
