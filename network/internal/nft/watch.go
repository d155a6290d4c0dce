package nft

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"

	mdnetlink "github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// A Change is a kind of event in the ruleset.
type Change int

// The changes that are reported. Lost says that events were missed: anything
// may have changed.
const (
	RulesChanged Change = iota // a chain or a rule came, changed or went
	TableDeleted
	Lost
)

// Watch calls seen for each change in the calling thread's network namespace
// until ctx ends; table is the name of the table that changed. ready is called
// once events are being received. seen must not wait for another change.
func Watch(ctx context.Context, ready func(), seen func(c Change, table string)) error {
	c, err := mdnetlink.Dial(unix.NETLINK_NETFILTER, nil)
	if err != nil {
		return fmt.Errorf("watch nftables: %w", err)
	}
	stop := context.AfterFunc(ctx, func() { c.Close() })
	defer stop()
	defer c.Close()
	if err := c.JoinGroup(unix.NFNLGRP_NFTABLES); err != nil {
		return fmt.Errorf("watch nftables: %w", err)
	}
	ready()
	for {
		msgs, err := c.Receive()
		if ctx.Err() != nil {
			return nil
		}
		if errors.Is(err, unix.ENOBUFS) {
			seen(Lost, "")
			continue
		}
		if err != nil {
			return fmt.Errorf("watch nftables: %w", err)
		}
		for _, m := range msgs {
			if m.Header.Type>>8 != unix.NFNL_SUBSYS_NFTABLES {
				continue
			}
			switch m.Header.Type & 0xff {
			case unix.NFT_MSG_NEWCHAIN, unix.NFT_MSG_DELCHAIN, unix.NFT_MSG_NEWRULE, unix.NFT_MSG_DELRULE:
				seen(RulesChanged, firstName(m.Data))
			case unix.NFT_MSG_DELTABLE:
				seen(TableDeleted, firstName(m.Data))
			}
		}
	}
}

// firstName reads the table's name, which is attribute 1 of the messages of
// tables, chains and rules alike.
func firstName(data []byte) string {
	const header = 4 // struct nfgenmsg
	if len(data) < header {
		return ""
	}
	ad, err := mdnetlink.NewAttributeDecoder(data[header:])
	if err != nil {
		return ""
	}
	ad.ByteOrder = binary.BigEndian
	for ad.Next() {
		if ad.Type() == unix.NFTA_TABLE_NAME {
			return strings.TrimRight(ad.String(), "\x00")
		}
	}
	return ""
}
