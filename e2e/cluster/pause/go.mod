module weft/cluster/pause

go 1.26.0
