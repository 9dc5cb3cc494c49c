/*
 * RFC 3339 timestamps. See rfc3339.h.
 *
 * The calendar is the proleptic Gregorian one. Days are counted from 0000-03-01, so that the leap
 * day is the last of its year; 400 years are 146,097 days.
 *
 * SPDX-License-Identifier: MIT
 */
#include "base/rfc3339.h"

#include <string.h>

#define SECOND_US INT64_C(1000000)
#define DAY_S INT64_C(86400)
#define DAYS_TO_1970 719468 /* from 0000-03-01 */

/* Days since 1970-01-01 of a date of the years 1 to 9999. */
static int64_t days_of_date(int year, int month, int day)
{
    int y = month <= 2 ? year - 1 : year; /* the year that began in March */
    int era = y / 400;
    int year_of_era = y - era * 400;
    int day_of_year = (153 * (month > 2 ? month - 3 : month + 9) + 2) / 5 + day - 1;
    int day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    return (int64_t)era * 146097 + day_of_era - DAYS_TO_1970;
}

static void date_of_days(int64_t days, int *ret_year, int *ret_month, int *ret_day)
{
    int64_t since_march = days + DAYS_TO_1970; /* not negative for the years 1 to 9999 */
    int era = (int)(since_march / 146097);
    int day_of_era = (int)(since_march % 146097);
    int year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36524 - day_of_era / 146096) / 365;
    int day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    int month = (5 * day_of_year + 2) / 153; /* from March */
    *ret_day = day_of_year - (153 * month + 2) / 5 + 1;
    *ret_month = month < 10 ? month + 3 : month - 9;
    *ret_year = era * 400 + year_of_era + (*ret_month <= 2);
}

static int days_in_month(int year, int month)
{
    static const int days[] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
    bool leap = (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;
    return days[month - 1] + (month == 2 && leap);
}

/* Exactly `digits` digits, then the byte `after` unless that is 0. Moves *p past both. */
static bool number(const char **p, int digits, char after, int *ret_value)
{
    int value = 0;
    for (int i = 0; i < digits; i++, (*p)++) {
        if (**p < '0' || **p > '9')
            return false;
        value = value * 10 + (**p - '0');
    }
    if (after) {
        if (**p != after)
            return false;
        (*p)++;
    }
    *ret_value = value;
    return true;
}

/* ".123456" to microseconds; no fraction is 0. */
static bool fraction(const char **p, int *ret_us)
{
    int us = 0, digits = 0;
    if (**p != '.') {
        *ret_us = 0;
        return true;
    }
    for ((*p)++; **p >= '0' && **p <= '9'; (*p)++, digits++) {
        if (digits < 6)
            us = us * 10 + (**p - '0');
    }
    if (digits < 1 || digits > 9)
        return false;
    for (int i = digits; i < 6; i++)
        us *= 10;
    *ret_us = us;
    return true;
}

/* "Z", "+01:00", "-23:59": seconds east of UTC. */
static bool offset(const char **p, int *ret_east_s)
{
    int hour, minute;
    char sign = *(*p)++;
    if (sign == 'Z' || sign == 'z') {
        *ret_east_s = 0;
        return true;
    }
    if (sign != '+' && sign != '-')
        return false;
    if (!number(p, 2, ':', &hour) || !number(p, 2, 0, &minute) || hour > 23 || minute > 59)
        return false;
    *ret_east_s = (hour * 60 + minute) * 60 * (sign == '-' ? -1 : 1);
    return true;
}

bool rfc3339_parse(const char *text, int64_t *ret_us)
{
    int year, month, day, hour, minute, second, us, east_s;
    const char *p = text;
    if (!number(&p, 4, '-', &year) || !number(&p, 2, '-', &month) || !number(&p, 2, 0, &day))
        return false;
    if (*p != 'T' && *p != 't')
        return false;
    p++;
    if (!number(&p, 2, ':', &hour) || !number(&p, 2, ':', &minute) || !number(&p, 2, 0, &second))
        return false;
    if (!fraction(&p, &us) || !offset(&p, &east_s) || *p != '\0')
        return false;
    if (year < 1 || month < 1 || month > 12 || day < 1 || day > days_in_month(year, month))
        return false;
    if (hour > 23 || minute > 59 || second > 59)
        return false;
    int64_t s = days_of_date(year, month, day) * DAY_S + hour * 3600 + minute * 60 + second;
    int64_t total_us = (s - east_s) * SECOND_US + us;
    if (total_us < RFC3339_MIN_US || total_us > RFC3339_MAX_US)
        return false;
    *ret_us = total_us;
    return true;
}

static char *put(char *p, int value, int digits)
{
    for (int i = digits - 1; i >= 0; i--, value /= 10)
        p[i] = (char)('0' + value % 10);
    return p + digits;
}

static char *put_date(char *p, int64_t days)
{
    int year, month, day;
    date_of_days(days, &year, &month, &day);
    p = put(p, year, 4);
    *p++ = '-';
    p = put(p, month, 2);
    *p++ = '-';
    return put(p, day, 2);
}

int rfc3339_format(int64_t us, char ret_text[RFC3339_SIZE])
{
    if (us < RFC3339_MIN_US)
        us = RFC3339_MIN_US;
    if (us > RFC3339_MAX_US)
        us = RFC3339_MAX_US;
    int64_t since_min_us = us - RFC3339_MIN_US; /* not negative, so / and % round down */
    int part_us = (int)(since_min_us % SECOND_US);
    int64_t s = since_min_us / SECOND_US;
    int second_of_day = (int)(s % DAY_S);
    char *p = put_date(ret_text, s / DAY_S + RFC3339_MIN_US / SECOND_US / DAY_S);
    *p++ = 'T';
    p = put(p, second_of_day / 3600, 2);
    *p++ = ':';
    p = put(p, second_of_day / 60 % 60, 2);
    *p++ = ':';
    p = put(p, second_of_day % 60, 2);
    if (part_us) {
        *p++ = '.';
        p = part_us % 1000 ? put(p, part_us, 6) : put(p, part_us / 1000, 3);
    }
    *p++ = 'Z';
    *p = '\0';
    return (int)(p - ret_text);
}
