// Package programs pins etcd for the local cluster.
package programs

import _ "go.etcd.io/etcd/server/v3"
