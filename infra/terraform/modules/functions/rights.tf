# What each Lambda may do, and nothing else. Partitions of the table: S# jobs and their summaries, C# chunks, F# and N# functions,
# E# estimates, W workers (shared/aws/src/schema.rs). Prefixes of the bucket: modules/data/bucket.tf.

locals {
  lane_arns        = [for queue in var.lanes : queue.arn]
  spot_lane_arns   = [for name, queue in var.lanes : queue.arn if startswith(name, "spot-")]
  lambda_lane_arns = [for name, queue in var.lanes : queue.arn if startswith(name, "lambda-")]

  send_hints = { Action = ["sqs:SendMessage", "sqs:GetQueueUrl"], Resource = local.lane_arns }
  # What an event source asks for on behalf of its Lambda, and what the worker does with the hints it was given.
  receive = ["sqs:ReceiveMessage", "sqs:DeleteMessage", "sqs:GetQueueAttributes", "sqs:ChangeMessageVisibility", "sqs:GetQueueUrl"]
  notify  = [for arn in var.event_bus_arn[*] : { Action = ["events:PutEvents"], Resource = [arn] }]
  # How many containers there are, of the grid's own services only.
  scale = [for capacity in var.capacity[*] : {
    Action    = ["ecs:DescribeServices", "ecs:UpdateService"]
    Resource  = capacity.service_arns
    Condition = { ArnEquals = { "ecs:cluster" = [capacity.cluster_arn] } }
  }]
  # How often containers are taken away. A list of tasks has no resource; the condition keeps it to the grid's own cluster.
  measure = flatten([for capacity in var.capacity[*] : [
    {
      Action    = ["ecs:ListTasks"]
      Resource  = ["*"]
      Condition = { ArnEquals = { "ecs:cluster" = [capacity.cluster_arn] } }
    },
    {
      Action = ["ecs:DescribeTasks", "ecs:DescribeContainerInstances"]
      Resource = [
        "${replace(capacity.cluster_arn, ":cluster/", ":task/")}/*",
        "${replace(capacity.cluster_arn, ":cluster/", ":container-instance/")}/*",
      ]
      Condition = { ArnEquals = { "ecs:cluster" = [capacity.cluster_arn] } }
    },
  ]])
  tracing = var.xray ? [{ Action = ["xray:PutTraceSegments", "xray:PutTelemetryRecords"], Resource = ["*"] }] : []

  # The API's writes: a job, its chunks, its seal, cancel and retry; functions.
  submit_table = [
    { actions = ["GetItem", "BatchGetItem", "Query"], partitions = ["S#*", "C#*", "F#*", "N#*", "E#*", "W"] },
    { actions = ["PutItem", "UpdateItem"], partitions = ["S#*", "C#*"] },
  ]
  # What workers do to chunks, and say of themselves.
  work_table = [
    { actions = ["GetItem", "BatchGetItem"], partitions = ["S#*", "C#*", "F#*", "E#*"] },
    { actions = ["UpdateItem"], partitions = ["C#*"] },
    { actions = ["PutItem", "DeleteItem"], partitions = ["W"] },
  ]

  rights = {
    submit = {
      description = "Writes of the API, and reads that are not of results"
      table       = concat(local.submit_table, [{ actions = ["PutItem"], partitions = ["F#*", "N#*"] }])
      indexes     = ["jobs", "alive"]
      objects = [
        { actions = ["GetObject", "PutObject", "AbortMultipartUpload"], prefixes = ["p/", "f/", "u/"] },
        { actions = ["GetObject"], prefixes = ["r/", "l/"] },
      ]
      missing    = true
      statements = [local.send_hints]
    }
    upload = {
      description = "Turns files under inbox/ into jobs, and results into files under outbox/"
      table       = local.submit_table
      indexes     = []
      objects = [
        { actions = ["GetObject", "GetObjectVersion"], prefixes = ["inbox/"] },
        # A report of what was wrong goes when a good file comes.
        { actions = ["GetObject", "PutObject", "AbortMultipartUpload", "DeleteObject"], prefixes = ["outbox/"] },
        { actions = ["GetObject", "PutObject", "AbortMultipartUpload"], prefixes = ["p/"] },
        { actions = ["GetObject"], prefixes = ["r/"] },
        # How far it is with results that it writes in several invocations.
        { actions = ["GetObject", "PutObject"], prefixes = ["u/collect/"] },
      ]
      missing = true
      statements = [
        local.send_hints,
        { Action = concat(local.receive, ["sqs:SendMessage"]), Resource = [var.uploads.arn] },
      ]
    }
    dispatch = {
      description = "Claims and runs chunks of short tasks"
      table       = local.work_table
      indexes     = []
      objects = [
        { actions = ["GetObject"], prefixes = ["p/", "f/", "k/"] },
        { actions = ["PutObject", "AbortMultipartUpload"], prefixes = ["r/", "l/", "k/"] },
        { actions = ["DeleteObject"], prefixes = ["k/"] },
      ]
      missing = true
      statements = concat(
        [
          { Action = local.receive, Resource = local.lambda_lane_arns },
          # What takes longer than a Lambda may is handed on.
          { Action = ["sqs:SendMessage", "sqs:GetQueueUrl"], Resource = local.spot_lane_arns },
        ],
        length(var.invoke_arns) == 0 ? [] : [{ Action = ["lambda:InvokeFunction"], Resource = var.invoke_arns }],
      )
    }
    result = {
      description = "Counts what has ended, closes jobs and tells of them"
      table = [
        { actions = ["GetItem", "Query"], partitions = ["S#*", "E#*"] },
        { actions = ["UpdateItem"], partitions = ["S#*"] },
        { actions = ["PutItem"], partitions = ["E#*"] },
      ]
      indexes = []
      objects = []
      missing = false
      statements = concat(local.notify, [
        { Action = ["dynamodb:DescribeStream", "dynamodb:GetRecords", "dynamodb:GetShardIterator", "dynamodb:ListStreams"], Resource = [var.table.stream_arn] },
        { Action = ["sqs:SendMessage", "sqs:GetQueueUrl"], Resource = [var.uploads.arn] },
        { Action = ["sqs:SendMessage"], Resource = [var.dead.arn] },
      ])
    }
    read = {
      description = "Reads of results"
      table       = [{ actions = ["GetItem", "BatchGetItem", "Query"], partitions = ["S#*", "C#*", "E#*"] }]
      indexes     = []
      objects = [
        { actions = ["GetObject"], prefixes = ["p/", "r/", "l/"] },
        { actions = ["GetObject", "PutObject"], prefixes = ["u/"] },
      ]
      missing    = true
      statements = []
    }
    sweep = {
      description = "Finds what was forgotten, removes what is past its retention, and scales the containers"
      table = [
        { actions = ["GetItem", "BatchGetItem", "Query"], partitions = ["S#*", "C#*", "E#*", "W"] },
        { actions = ["UpdateItem", "DeleteItem", "BatchWriteItem"], partitions = ["S#*", "C#*"] },
        { actions = ["PutItem"], partitions = ["E#*"] },
      ]
      indexes = ["jobs", "alive", "due"]
      objects = [{ actions = ["DeleteObject"], prefixes = ["p/", "r/", "l/", "k/"] }]
      missing = false
      statements = concat(local.scale, local.measure, [
        local.send_hints,
        # How many hints wait, for the metrics and the scaler.
        { Action = ["sqs:GetQueueAttributes"], Resource = local.lane_arns },
        {
          Action    = ["s3:ListBucket"]
          Resource  = [var.bucket.arn]
          Condition = { StringLike = { "s3:prefix" = ["p/*", "r/*", "l/*", "k/*"] } }
        },
      ])
    }
  }
}

module "role" {
  source   = "../role"
  for_each = local.rights

  name                      = "${var.grid}-${each.key}"
  description               = each.value.description
  service                   = "lambda.amazonaws.com"
  table                     = var.table
  table_rights              = each.value.table
  indexes                   = each.value.indexes
  bucket                    = var.bucket
  object_rights             = each.value.objects
  learns_of_missing_objects = each.value.missing
  kms_key_arn               = var.kms_key_arn
  statements = concat(each.value.statements, local.tracing, [
    { Action = ["logs:CreateLogStream", "logs:PutLogEvents"], Resource = ["${aws_cloudwatch_log_group.this[each.key].arn}:*"] },
  ])
}
