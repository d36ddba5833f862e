// Reads and writes artifacts with the ORAS library, as the oras command does, so that the tests of ocifs have a peer
// that shares no line with it.
//
//	interop pull [--plain-http] REGISTRY/REPOSITORY:TAG DIRECTORY
//	interop push [--plain-http] REGISTRY/REPOSITORY:TAG DIRECTORY
//
// Both print the digest of the manifest. `push` packs every name of the directory as the oras command packs its
// arguments: files as they are, directories as tar.gz. Exit code 1 with one line on stderr if anything fails.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"sort"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"oras.land/oras-go/v2"
	"oras.land/oras-go/v2/content"
	"oras.land/oras-go/v2/content/file"
	"oras.land/oras-go/v2/registry/remote"
)

const artifactType = "application/vnd.unknown.artifact.v1"

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "interop:", err)
		os.Exit(1)
	}
}

func run(arguments []string) error {
	if len(arguments) == 0 {
		return fmt.Errorf("expected pull or push")
	}
	flags := flag.NewFlagSet(arguments[0], flag.ContinueOnError)
	plainHTTP := flags.Bool("plain-http", false, "use http")
	if err := flags.Parse(arguments[1:]); err != nil {
		return err
	}
	if flags.NArg() != 2 {
		return fmt.Errorf("expected a reference and a directory")
	}
	repository, err := remote.NewRepository(flags.Arg(0))
	if err != nil {
		return err
	}
	repository.PlainHTTP = *plainHTTP
	switch arguments[0] {
	case "pull":
		return pull(repository, flags.Arg(1))
	case "push":
		return push(repository, flags.Arg(1))
	}
	return fmt.Errorf("unknown command %q", arguments[0])
}

// pull copies what has a title into the directory; what has none is no file and is left out, as `oras pull` leaves it out.
func pull(repository *remote.Repository, directory string) error {
	store, err := file.New(directory)
	if err != nil {
		return err
	}
	defer store.Close()
	options := oras.DefaultCopyOptions
	options.FindSuccessors = func(ctx context.Context, fetcher content.Fetcher, node ocispec.Descriptor) ([]ocispec.Descriptor, error) {
		successors, err := content.Successors(ctx, fetcher, node)
		if err != nil {
			return nil, err
		}
		var titled []ocispec.Descriptor
		for _, successor := range successors {
			if successor.Annotations[ocispec.AnnotationTitle] != "" || content.Equal(successor, ocispec.DescriptorEmptyJSON) {
				titled = append(titled, successor)
			} else {
				fmt.Fprintln(os.Stderr, "skipped, since it has no title:", successor.MediaType, successor.Digest)
			}
		}
		return titled, nil
	}
	root, err := oras.Copy(context.Background(), repository, repository.Reference.Reference, store, "pulled", options)
	if err != nil {
		return err
	}
	fmt.Println(root.Digest)
	return nil
}

// push packs the names of the directory in their order.
func push(repository *remote.Repository, directory string) error {
	ctx := context.Background()
	store, err := file.New(directory)
	if err != nil {
		return err
	}
	defer store.Close()
	store.TarReproducible = true
	names, err := filepath.Glob(filepath.Join(directory, "*"))
	if err != nil {
		return err
	}
	sort.Strings(names)
	var layers []ocispec.Descriptor
	for _, path := range names {
		name := filepath.Base(path)
		layer, err := store.Add(ctx, name, "", name)
		if err != nil {
			return err
		}
		layers = append(layers, layer)
	}
	root, err := oras.PackManifest(ctx, store, oras.PackManifestVersion1_1, artifactType, oras.PackManifestOptions{Layers: layers})
	if err != nil {
		return err
	}
	if err := store.Tag(ctx, root, "pushed"); err != nil {
		return err
	}
	if _, err := oras.Copy(ctx, store, "pushed", repository, repository.Reference.Reference, oras.DefaultCopyOptions); err != nil {
		return err
	}
	fmt.Println(root.Digest)
	return nil
}
