package store

import (
	"context"
	"encoding/json"
	"fmt"
)

// formatKey tells which data format the key space has. It lies outside of
// /registry/, where Kubernetes does not look.
const formatKey = "/hansa.dev/format"

// dataFormat is the newest format that this program reads and the one it
// writes. It grows when an older program could no longer understand the data.
const dataFormat = 1

type format struct {
	Data int `json:"data"`
}

// checkFormat refuses data of a newer program, and marks data that has no mark.
func (s *Store) checkFormat(ctx context.Context) error {
	resp, err := s.engine.Range(ctx, RangeRequest{Start: formatKey})
	if err != nil {
		return fmt.Errorf("read %s: %w", formatKey, err)
	}
	if len(resp.KVs) == 0 {
		value, err := json.Marshal(format{dataFormat})
		if err != nil {
			return err
		}
		// Who loses the race against another server finds the mark there.
		_, err = s.engine.Txn(ctx, []Step{{
			If:   []Condition{{Key: formatKey}},
			Then: []Put{{Key: formatKey, Value: value}},
		}})
		if err != nil {
			return fmt.Errorf("write %s: %w", formatKey, err)
		}
		return nil
	}
	var f format
	if err := json.Unmarshal(resp.KVs[0].Value, &f); err != nil {
		return fmt.Errorf("read %s: %w", formatKey, err)
	}
	if f.Data > dataFormat {
		return fmt.Errorf("the data was written by a newer version of hansa (data format %d, this one knows %d): "+
			"start that version, or restore a snapshot taken before the upgrade", f.Data, dataFormat)
	}
	return nil
}
