-- The tables of an app that nobody wrote for profile_cache: its own names, foreign keys of every kind
-- (composite, to columns that are not the primary key, to the profile itself, across types, padded, over
-- a domain and a collation that ignores case), columns that are generated, and two ways of the same
-- table to another. tests/catalogue/rows.sql fills it.
CREATE TYPE account_kind AS ENUM ('person', 'bot', 'guest');
CREATE DOMAIN auth_ref AS uuid;
CREATE COLLATION any_case (PROVIDER = icu, LOCALE = 'und-u-ks-level2', DETERMINISTIC = false);

-- Where people are.
CREATE TABLE geo_country (
    id int PRIMARY KEY,
    iso text NOT NULL UNIQUE,
    name text,
    eu boolean NOT NULL DEFAULT false
);
CREATE TABLE geo_locale (
    id int PRIMARY KEY,
    code text NOT NULL UNIQUE,
    label text
);
CREATE TABLE geo_currency (
    code char(3) PRIMARY KEY,
    name text
);
CREATE TABLE accounts_tenant (
    id int PRIMARY KEY,
    title text
);
CREATE TABLE accounts_company (
    id int PRIMARY KEY,
    name text,
    active boolean NOT NULL DEFAULT true,
    country_id int REFERENCES geo_country ON UPDATE CASCADE ON DELETE SET NULL,
    currency char(3) REFERENCES geo_currency ON UPDATE CASCADE ON DELETE SET NULL
);

-- What they may do.
CREATE TABLE access_role (
    id numeric PRIMARY KEY,
    name text
);
CREATE TABLE access_permission (
    id int PRIMARY KEY,
    codename text NOT NULL
);
CREATE TABLE access_role_permission (
    role_id numeric NOT NULL REFERENCES access_role ON UPDATE CASCADE ON DELETE CASCADE,
    permission_id int NOT NULL REFERENCES access_permission ON UPDATE CASCADE ON DELETE CASCADE,
    PRIMARY KEY (role_id, permission_id)
);

CREATE TABLE accounts_profile (
    id bigint PRIMARY KEY,
    auth_id uuid NOT NULL UNIQUE,
    tenant_id int NOT NULL REFERENCES accounts_tenant ON UPDATE CASCADE ON DELETE CASCADE,
    user_no int NOT NULL,
    email text,
    name text,
    shown_name text GENERATED ALWAYS AS (coalesce(name, split_part(email, '@', 1))) STORED,
    kind account_kind NOT NULL DEFAULT 'person',
    manager_id bigint REFERENCES accounts_profile ON UPDATE CASCADE ON DELETE SET NULL,
    company_id int REFERENCES accounts_company ON UPDATE CASCADE ON DELETE SET NULL,
    home_country text REFERENCES geo_country (iso) ON UPDATE CASCADE ON DELETE SET NULL,
    billing_country text REFERENCES geo_country (iso) ON UPDATE CASCADE ON DELETE SET NULL,
    locale text REFERENCES geo_locale (code) ON UPDATE CASCADE ON DELETE SET NULL,
    primary_role int REFERENCES access_role ON UPDATE CASCADE ON DELETE SET NULL,
    tags text[] NOT NULL DEFAULT '{}',
    settings jsonb,
    created timestamptz NOT NULL DEFAULT now(),
    seen timestamptz,
    UNIQUE (tenant_id, user_no)
);

-- Members: what a profile has.
CREATE TABLE accounts_preference (
    profile_id bigint NOT NULL UNIQUE REFERENCES accounts_profile ON UPDATE CASCADE ON DELETE CASCADE,
    theme text,
    digest boolean
);
CREATE TABLE accounts_device (
    id int PRIMARY KEY,
    profile_id int REFERENCES accounts_profile ON UPDATE CASCADE ON DELETE CASCADE DEFERRABLE,
    serial text,
    push boolean NOT NULL DEFAULT false
);
CREATE TABLE accounts_skill (
    name text COLLATE any_case PRIMARY KEY,
    level int
);
CREATE TABLE accounts_profile_skill (
    profile_id bigint NOT NULL REFERENCES accounts_profile ON UPDATE CASCADE ON DELETE CASCADE,
    skill text COLLATE any_case NOT NULL REFERENCES accounts_skill ON UPDATE CASCADE ON DELETE CASCADE,
    years int,
    PRIMARY KEY (profile_id, skill)
);
CREATE TABLE access_grant (
    id int PRIMARY KEY,
    holder auth_ref NOT NULL REFERENCES accounts_profile (auth_id) ON UPDATE CASCADE ON DELETE CASCADE,
    granted_by bigint REFERENCES accounts_profile ON UPDATE CASCADE ON DELETE SET NULL,
    role_id numeric REFERENCES access_role ON UPDATE CASCADE ON DELETE SET NULL
);

-- Where they sit: a desk belongs to a tenant, as a person does.
CREATE TABLE hr_desk (
    tenant_id int NOT NULL REFERENCES accounts_tenant ON UPDATE CASCADE ON DELETE CASCADE,
    desk_no int NOT NULL,
    floor int,
    PRIMARY KEY (tenant_id, desk_no)
);
CREATE TABLE hr_seat (
    tenant_id int NOT NULL,
    user_no int NOT NULL,
    desk_no int,
    phone text,
    PRIMARY KEY (tenant_id, user_no),
    FOREIGN KEY (tenant_id, user_no) REFERENCES accounts_profile (tenant_id, user_no) ON UPDATE CASCADE ON DELETE CASCADE,
    FOREIGN KEY (tenant_id, desk_no) REFERENCES hr_desk ON UPDATE CASCADE ON DELETE CASCADE
);

-- What they pay.
CREATE TABLE billing_plan (
    id text PRIMARY KEY,
    title text,
    monthly numeric,
    yearly numeric GENERATED ALWAYS AS (monthly * 12) STORED
);
CREATE TABLE billing_feature (
    id int PRIMARY KEY,
    code text NOT NULL UNIQUE,
    label text
);
CREATE TABLE billing_plan_feature (
    plan_id text NOT NULL REFERENCES billing_plan ON UPDATE CASCADE ON DELETE CASCADE,
    feature text NOT NULL REFERENCES billing_feature (code) ON UPDATE CASCADE ON DELETE CASCADE,
    quota int,
    PRIMARY KEY (plan_id, feature)
);
CREATE TABLE billing_account (
    id int PRIMARY KEY,
    profile_id bigint NOT NULL UNIQUE REFERENCES accounts_profile ON UPDATE CASCADE ON DELETE CASCADE,
    plan_id varchar(20) REFERENCES billing_plan ON UPDATE CASCADE ON DELETE SET NULL,
    payer bigint REFERENCES accounts_profile ON UPDATE CASCADE ON DELETE SET NULL,
    currency text
);
CREATE TABLE billing_subscription (
    id int PRIMARY KEY,
    profile_id bigint NOT NULL REFERENCES accounts_profile ON UPDATE CASCADE ON DELETE CASCADE,
    plan_id text REFERENCES billing_plan ON UPDATE CASCADE ON DELETE SET NULL,
    status text NOT NULL DEFAULT 'active',
    started timestamptz,
    ends timestamptz
);
CREATE TABLE billing_invoice (
    id int PRIMARY KEY,
    subscription_id int NOT NULL REFERENCES billing_subscription ON UPDATE CASCADE ON DELETE CASCADE,
    total numeric,
    paid boolean NOT NULL DEFAULT false
);

-- An index on every foreign key that no key begins with.
CREATE INDEX ON accounts_company (country_id);
CREATE INDEX ON accounts_company (currency);
CREATE INDEX ON access_role_permission (permission_id);
CREATE INDEX ON accounts_profile (manager_id);
CREATE INDEX ON accounts_profile (company_id);
CREATE INDEX ON accounts_profile (home_country);
CREATE INDEX ON accounts_profile (billing_country);
CREATE INDEX ON accounts_profile (locale);
CREATE INDEX ON accounts_profile (primary_role);
CREATE INDEX ON accounts_device (profile_id);
CREATE INDEX ON accounts_profile_skill (skill);
CREATE INDEX ON access_grant (holder);
CREATE INDEX ON access_grant (granted_by);
CREATE INDEX ON access_grant (role_id);
CREATE INDEX ON hr_seat (tenant_id, desk_no);
CREATE INDEX ON billing_plan_feature (feature);
CREATE INDEX ON billing_account (plan_id);
CREATE INDEX ON billing_account (payer);
CREATE INDEX ON billing_subscription (profile_id);
CREATE INDEX ON billing_subscription (plan_id);
CREATE INDEX ON billing_invoice (subscription_id);

-- Who logs in: profiles and their memberships refer to people, and neither to the other.
CREATE TABLE people_person (
    id bigint PRIMARY KEY,
    username text,
    seen timestamptz
);
ALTER TABLE accounts_profile ADD person_id int UNIQUE REFERENCES people_person ON UPDATE CASCADE ON DELETE SET NULL;
CREATE TABLE people_membership (
    id int PRIMARY KEY,
    person_id bigint REFERENCES people_person ON UPDATE CASCADE ON DELETE CASCADE,
    plan_id text REFERENCES billing_plan ON UPDATE CASCADE ON DELETE SET NULL,
    level text
);
CREATE TABLE people_contact (
    person_id bigint PRIMARY KEY REFERENCES people_person ON UPDATE CASCADE ON DELETE CASCADE,
    phone text
);
CREATE INDEX ON people_membership (person_id);
CREATE INDEX ON people_membership (plan_id);

-- Addresses, of which one at most is the main one, one in use, one not given up: by partial unique indexes.
CREATE TABLE accounts_address (
    id int PRIMARY KEY,
    profile_id bigint NOT NULL REFERENCES accounts_profile ON UPDATE CASCADE ON DELETE CASCADE,
    mail text NOT NULL,
    main boolean,
    state text,
    gone timestamptz,
    plan_id text REFERENCES billing_plan ON UPDATE CASCADE ON DELETE SET NULL
);
CREATE UNIQUE INDEX ON accounts_address (profile_id, main) WHERE main;
CREATE UNIQUE INDEX ON accounts_address (profile_id) WHERE state IN ('current', 'confirmed');
CREATE UNIQUE INDEX ON accounts_address (profile_id) WHERE gone IS NULL AND NOT main;
CREATE UNIQUE INDEX ON accounts_address (plan_id) WHERE plan_id IS NOT NULL AND state = 'past';
CREATE INDEX ON accounts_address (profile_id);
