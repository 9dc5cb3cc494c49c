/*
 * Bookings at risk. See at_risk.h.
 *
 * SPDX-License-Identifier: MIT
 */
#include "router/at_risk.h"

static size_t place(const struct at_risk *risk, size_t i)
{
    return (risk->head + i) % AT_RISK_ENTRIES;
}

static void drop_oldest(struct at_risk *risk)
{
    risk->head = place(risk, 1);
    risk->count--;
}

void at_risk_add(struct at_risk *risk, uint64_t lsn, int64_t bookings)
{
    risk->bookings += bookings;
    if (lsn == 0) {
        risk->without += bookings;
        return;
    }
    bookings += risk->without;
    risk->without = 0;
    if (risk->count) { /* answers of several connections may cross */
        uint64_t newest = risk->entries[place(risk, risk->count - 1)].lsn;
        if (lsn <= newest) {
            risk->entries[place(risk, risk->count - 1)].bookings += bookings;
            return;
        }
    }
    if (risk->count == AT_RISK_ENTRIES) {
        risk->entries[place(risk, 1)].bookings += risk->entries[risk->head].bookings;
        drop_oldest(risk);
    }
    size_t at = place(risk, risk->count++);
    risk->entries[at].lsn = lsn;
    risk->entries[at].bookings = bookings;
}

void at_risk_received(struct at_risk *risk, int32_t timeline, uint64_t lsn)
{
    if (timeline != risk->timeline)
        return;
    while (risk->count && risk->entries[risk->head].lsn <= lsn) {
        risk->bookings -= risk->entries[risk->head].bookings;
        drop_oldest(risk);
    }
}

int64_t at_risk_timeline(struct at_risk *risk, int32_t timeline)
{
    if (timeline <= risk->timeline)
        return 0;
    int64_t lost = risk->bookings;
    risk->timeline = timeline;
    risk->count = 0;
    risk->bookings = 0;
    risk->without = 0;
    return lost;
}

int64_t at_risk_count(const struct at_risk *risk)
{
    return risk->bookings;
}
