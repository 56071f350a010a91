// Reads archives from standard input, each behind its length (32 bits, little-endian), with Go's archive/tar,
// and writes what it finds: `== N` for each archive, then a line for each entry, or ERR where it gives up.
package main

import (
	"archive/tar"
	"bufio"
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sort"
	"strings"
)

func main() {
	out := bufio.NewWriter(os.Stdout)
	defer out.Flush()
	for number := 0; ; number++ {
		var length uint32
		if binary.Read(os.Stdin, binary.LittleEndian, &length) != nil {
			return
		}
		archive := make([]byte, length)
		if _, err := io.ReadFull(os.Stdin, archive); err != nil {
			panic(err)
		}
		fmt.Fprintf(out, "== %d\n", number)
		if err := list(out, tar.NewReader(bytes.NewBuffer(archive))); err != nil {
			fmt.Fprintf(out, "ERR %v\n", err)
		}
	}
}

func list(out io.Writer, reader *tar.Reader) error {
	for {
		header, err := reader.Next()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		kind, target, size := string(header.Typeflag), "", int64(0)
		switch header.Typeflag {
		case tar.TypeXGlobalHeader:
			continue
		case tar.TypeReg, tar.TypeCont, tar.TypeGNUSparse:
			kind, size = "0", header.Size
		case tar.TypeLink:
			target = filepath.Join("/", header.Linkname)
		case tar.TypeSymlink:
			target = header.Linkname
		case tar.TypeChar, tar.TypeBlock:
			target = fmt.Sprintf("%d:%d", header.Devmajor, header.Devminor)
		}
		var attributes []string
		for key, value := range header.PAXRecords {
			if name := strings.TrimPrefix(key, "SCHILY.xattr."); name != key {
				attributes = append(attributes, fmt.Sprintf(" %x=%x", name, value))
			}
		}
		sort.Strings(attributes)
		sum := uint32(0x811c9dc5)
		if size > 0 {
			content, err := io.ReadAll(io.LimitReader(reader, 1<<26))
			if err != nil {
				return err
			}
			for _, b := range content {
				sum = (sum ^ uint32(b)) * 0x01000193
			}
		}
		fmt.Fprintf(out, "%s%04o %d:%d %d+%d %x %x %d %08x%s\n", kind, header.Mode&07777, header.Uid, header.Gid,
			header.ModTime.Unix(), header.ModTime.Nanosecond(), filepath.Join("/", header.Name), target, size, sum,
			strings.Join(attributes, ""))
	}
}
