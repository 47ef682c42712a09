-- What has arrived at a node is one number: 1 for each dependency that has ended, 2^17 more for each that
-- was skipped, 2^34 more for each that failed. A double holds that exactly for 100,000 dependencies.
local ARRIVALS = 131072
local SKIPPED, FAILED = 1 + ARRIVALS, 1 + ARRIVALS * ARRIVALS
