# One grid on AWS. Each concern is a module; this file only joins them.

data "aws_caller_identity" "this" {}
data "aws_partition" "this" {}
data "aws_region" "this" {}

locals {
  account = data.aws_caller_identity.this.account_id
  region  = data.aws_region.this.name
  bucket  = coalesce(var.bucket, "${var.grid}-${local.account}-${local.region}")
  # A queue takes this long to give a message to another Lambda: longer than the one that has it may run.
  timeouts = { for name in ["dispatch", "upload"] : name => coalesce(try(var.functions[name].timeout_s, null), 900) }

  # Tasks that the containers of each lane run at once, at most, and how long one takes to come: what clients are told, so that a
  # deadline that cannot be kept is said when a job is submitted. Containers on demand take both lanes.
  container_slots = coalesce(var.workers.slots, max(1, floor(var.workers.cpu / 1024)))
  containers = {
    for lane, most in { spot = var.workers.spot_max + var.workers.on_demand_max, on-demand = var.workers.on_demand_max } : lane => {
      slots                  = most * local.container_slots
      boot_ms                = 1000 * coalesce(var.workers.boot_s, 90)
    } if var.workers.image != ""
  }

  # What a deployed program is told. Read in one place, shared/aws/src/ports.rs.
  environment = merge(
    {
      SHEAF_GRID   = var.grid
      SHEAF_TABLE  = module.data.table.name
      SHEAF_BUCKET = module.data.bucket.name
      SHEAF_QUEUES = var.grid
      SHEAF_SLOTS  = tostring(var.slots)
      SHEAF_LOG    = var.log_filter
    },
    var.event_bus == "" ? {} : { SHEAF_EVENT_BUS = var.event_bus },
    var.workers.image == "" ? {} : { SHEAF_SPOT = "1", SHEAF_CONTAINERS = jsonencode(local.containers) },
    var.environment,
  )
}

module "data" {
  source = "./modules/data"

  grid                   = var.grid
  account                = local.account
  bucket                 = local.bucket
  kms_key_arn            = var.kms_key_arn
  point_in_time_recovery = var.point_in_time_recovery
  deletion_protection    = var.deletion_protection
  force_destroy          = var.force_destroy
  inbox_days             = var.inbox_days
  outbox_days            = var.outbox_days
  timeouts               = local.timeouts
}

module "functions" {
  source = "./modules/functions"

  grid               = var.grid
  packages           = coalesce(var.packages, "${path.root}/../../target/lambda/${var.architecture}")
  architecture       = var.architecture
  settings           = var.functions
  timeouts           = local.timeouts
  slots              = var.slots
  environment        = local.environment
  table              = module.data.table
  bucket             = module.data.bucket
  lanes              = module.data.lanes
  uploads            = module.data.uploads
  dead               = module.data.dead
  kms_key_arn        = var.kms_key_arn
  invoke_arns        = var.invoke_arns
  capacity           = one(module.workers[*].capacity)
  event_bus_arn      = var.event_bus == "" ? null : "arn:${data.aws_partition.this.partition}:events:${local.region}:${local.account}:event-bus/${var.event_bus}"
  stream_filter      = file("${path.root}/../../shared/aws/stream-filter.json")
  log_retention_days = var.log_retention_days
  xray               = var.xray
}

module "api" {
  source = "./modules/api"

  grid               = var.grid
  submit             = module.functions.lambdas.submit
  read               = module.functions.lambdas.read
  rate               = var.api_rate
  burst              = var.api_burst
  log_retention_days = var.log_retention_days
}

# What a client that works with its own rights needs to know beside the grid's name.
locals {
  described = {
    version = 1
    bucket  = module.data.bucket.name
    queues  = var.grid
    api     = module.api.url
    slots   = var.slots
    lanes   = local.containers
  }
}

resource "aws_dynamodb_table_item" "grid" {
  table_name = module.data.table.name
  hash_key   = "pk"
  range_key  = "sk"
  item = jsonencode({
    pk   = { S = "G" }
    sk   = { S = "GRID" }
    json = { S = jsonencode(local.described) }
  })
}

module "access" {
  source = "./modules/access"

  grid        = var.grid
  api_arn     = module.api.execution_arn
  table       = module.data.table
  bucket      = module.data.bucket
  lanes       = module.data.lanes
  kms_key_arn = var.kms_key_arn
}

module "workers" {
  source = "./modules/workers"
  count  = var.workers.image == "" ? 0 : 1

  grid               = var.grid
  region             = local.region
  architecture       = var.architecture
  settings           = var.workers
  environment        = local.environment
  table              = module.data.table
  bucket             = module.data.bucket
  lanes              = module.data.lanes
  invoke_arns        = var.invoke_arns
  kms_key_arn        = var.kms_key_arn
  log_retention_days = var.log_retention_days
}

module "observability" {
  source = "./modules/observability"

  grid      = var.grid
  region    = local.region
  functions = { for name, lambda in module.functions.lambdas : name => lambda.name }
  api_id    = module.api.id
  table     = module.data.table.name
  dead      = { dead = module.data.dead.name, uploads-dead = module.data.uploads_dead.name }
  queues    = concat([for queue in module.data.lanes : queue.name], [module.data.uploads.name])
  dashboard = var.dashboard
  alarms    = var.alarms
  email     = var.alarm_email
}

module "budget" {
  source = "./modules/budget"
  count  = var.budget_usd > 0 ? 1 : 0

  grid  = var.grid
  usd   = var.budget_usd
  email = var.alarm_email
}
