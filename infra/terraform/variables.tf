variable "grid" {
  description = "Name of the grid. The table has it, and the names of everything else begin with it."
  type        = string

  validation {
    # With account and region behind it, it must still be the name of a bucket (63 characters).
    condition     = can(regex("^[a-z][a-z0-9-]{0,29}[a-z0-9]$", var.grid))
    error_message = "A grid's name has 2 to 31 characters: lower-case letters, digits and hyphens, a letter first, no hyphen last."
  }
}

variable "region" {
  description = "Region of AWS; null for the one that the environment or profile names."
  type        = string
  default     = null
}

variable "tags" {
  description = "Tags of everything, beside sheaf:grid."
  type        = map(string)
  default     = {}

  validation {
    condition     = !contains(keys(var.tags), "sheaf:grid")
    error_message = "The tag sheaf:grid is set by the grid itself."
  }
}

# Code

variable "architecture" {
  description = "What the packages are built for: arm64 (a fifth cheaper) or x86_64."
  type        = string
  default     = "arm64"

  validation {
    condition     = contains(["arm64", "x86_64"], var.architecture)
    error_message = "Lambda knows the architectures arm64 and x86_64."
  }
}

variable "packages" {
  description = "Folder with sheaf-submit.zip, sheaf-dispatch.zip, sheaf-result.zip and sheaf-sweep.zip; null for where `cargo xtask package` puts them."
  type        = string
  default     = null
}

variable "environment" {
  description = "More variables of the environment of all Lambdas and containers, such as AWS_ENDPOINT_URL for another AWS than the real one. No secrets: whoever may look at the functions sees them."
  type        = map(string)
  default     = {}
}

variable "functions" {
  description = <<-TEXT
    Memory (MB), timeout (s) and reserved concurrency of Lambdas, by their names: submit, upload, dispatch, result, read and
    sweep. What is not given is as in modules/functions. Reserved concurrency is taken from the account's; none by default.
  TEXT
  type = map(object({
    memory_mb            = optional(number)
    timeout_s            = optional(number)
    reserved_concurrency = optional(number)
  }))
  default = {}

  validation {
    condition     = length(setsubtract(keys(var.functions), ["submit", "upload", "dispatch", "result", "read", "sweep"])) == 0
    error_message = "The functions are submit, upload, dispatch, result, read and sweep."
  }
  validation {
    condition = alltrue([for f in values(var.functions) :
      (f.memory_mb == null ? true : f.memory_mb >= 128 && f.memory_mb <= 10240) && (f.timeout_s == null ? true : f.timeout_s >= 1 && f.timeout_s <= 900)
    ])
    error_message = "A Lambda has 128 to 10240 MB and 1 to 900 s."
  }
  validation {
    condition     = alltrue([for name in ["submit", "read"] : try(coalesce(var.functions[name].timeout_s, 29) <= 29, true)])
    error_message = "API Gateway gives an answer up after 30 s: submit and read may have 29 s at most."
  }
}

variable "slots" {
  description = "Lambdas that run tasks at once, for each of the three priorities. Clients are told of it."
  type        = number
  default     = 100

  validation {
    condition     = var.slots >= 2 && var.slots <= 1000 && floor(var.slots) == var.slots
    error_message = "An event source takes a whole number of 2 to 1000 as its maximum concurrency."
  }
}

variable "invoke_arns" {
  description = "Lambdas that functions of kind `lambda` may name. None but these can be invoked."
  type        = list(string)
  default     = []

  validation {
    condition     = alltrue([for arn in var.invoke_arns : can(regex("^arn:aws[a-z-]*:lambda:[a-z0-9-]+:[0-9]{12}:function:[A-Za-z0-9_-]+(:[A-Za-z0-9_$-]+)?$", arn))])
    error_message = "Each must be the whole ARN of one Lambda, without wildcards."
  }
}

variable "event_bus" {
  description = "Existing EventBridge bus that hears of jobs that have ended; empty for none."
  type        = string
  default     = "default"
}

variable "log_filter" {
  description = "What is logged: a filter such as info or sheaf_protocol=debug,info; with sheaf_requests=debug, what each invocation asks of AWS."
  type        = string
  default     = "info"
}

variable "log_retention_days" {
  description = "Days for which logs are kept."
  type        = number
  default     = 30

  validation {
    condition     = contains([1, 3, 5, 7, 14, 30, 60, 90, 120, 150, 180, 365, 400, 545, 731, 1096, 1827, 2192, 2557, 2922, 3288, 3653], var.log_retention_days)
    error_message = "CloudWatch keeps logs for 1, 3, 5, 7, 14, 30, 60, 90, 120, 150, 180, 365 or more of its fixed numbers of days."
  }
}

variable "xray" {
  description = "Whether Lambdas are traced with X-Ray."
  type        = bool
  default     = false
}

# What is kept

variable "bucket" {
  description = "Name of the bucket; null for grid, account and region."
  type        = string
  default     = null
}

variable "kms_key_arn" {
  description = "Key of your own for the table and the bucket; null for AWS's, which cost nothing. S3 and the grid's roles get to use it."
  type        = string
  default     = null
}

variable "point_in_time_recovery" {
  description = "Whether the table can be brought back to any second of the last 35 days."
  type        = bool
  default     = true
}

variable "deletion_protection" {
  description = "Whether the table refuses to be deleted."
  type        = bool
  default     = false
}

variable "force_destroy" {
  description = "Whether the bucket may be removed with what is in it, all versions. `cargo xtask destroy` sets it."
  type        = bool
  default     = false
}

variable "inbox_days" {
  description = "Days for which uploaded files are kept; 0 for ever."
  type        = number
  default     = 0

  validation {
    condition     = var.inbox_days >= 0 && floor(var.inbox_days) == var.inbox_days
    error_message = "A whole number of days, 0 for ever."
  }
}

variable "outbox_days" {
  description = "Days for which result files are kept; 0 for ever."
  type        = number
  default     = 0

  validation {
    condition     = var.outbox_days >= 0 && floor(var.outbox_days) == var.outbox_days
    error_message = "A whole number of days, 0 for ever."
  }
}

# The API

variable "api_rate" {
  description = "Requests a second that the API takes in the long run."
  type        = number
  default     = 500

  validation {
    condition     = var.api_rate > 0
    error_message = "It must take some requests."
  }
}

variable "api_burst" {
  description = "Requests that the API takes at once."
  type        = number
  default     = 1000

  validation {
    condition     = var.api_burst > 0
    error_message = "It must take some requests."
  }
}

# Containers

variable "workers" {
  description = <<-TEXT
    Containers for long tasks. Without an image there are none, and nothing of this is made.
    image            of infra/worker.Dockerfile, in a registry that ECS can pull from
    cpu, memory_mb   of one container, as Fargate has them
    disk_gb          scratch space of one container
    slots            tasks that one container runs at once; null for as many as it has cores
    spot_max, on_demand_max  containers of each lane at most; at least there are none
    scaling          whether their number follows the work; without it, it is set by hand
    policy           who decides how many there are, as `sheaf plan` and docs/capacity.md name them
    grace_s          seconds that an idle container stays, for policies that have such a time
    drain_s          seconds in which work without a deadline should be done, for the policy sheaf: with 300 and containers of one
                     slot, one for each 300 s of work
    boot_s           seconds until 95 of 100 containers take chunks; null for 90 on Fargate and 180 on a fleet, which are guesses
    spot_price, on_demand_price  dollars for a container and hour; null for Fargate's list price, and half of it for spot
    reclaims_per_hour        spot containers taken away, for each container and hour: a guess, on the safe side, that counts until
                     containers have shown something else
    capacity         what the spot lane runs on: fargate (FARGATE_SPOT) or ec2 (a fleet of spot instances)
    on_demand_share  percent of the spot lane's containers or instances that are on-demand, for when spot is scarce
    instance_types, instance_max     of that fleet, most wanted first; types of the packages' architecture
    vpc_id, subnet_ids       null for the default VPC
    public_ip        containers reach AWS by public addresses; false needs VPC endpoints in those subnets. There is never a NAT
  TEXT
  type = object({
    image             = optional(string, "")
    cpu               = optional(number, 1024)
    memory_mb         = optional(number, 2048)
    disk_gb           = optional(number, 21)
    slots             = optional(number)
    spot_max          = optional(number, 10)
    on_demand_max     = optional(number, 2)
    scaling           = optional(bool, true)
    policy            = optional(string, "sheaf")
    grace_s           = optional(number, 60)
    drain_s           = optional(number, 300)
    boot_s            = optional(number)
    spot_price        = optional(number)
    on_demand_price   = optional(number)
    reclaims_per_hour = optional(number, 1)
    capacity          = optional(string, "fargate")
    on_demand_share   = optional(number, 0)
    instance_types    = optional(list(string))
    instance_max      = optional(number, 10)
    vpc_id            = optional(string)
    subnet_ids        = optional(list(string))
    public_ip         = optional(bool, true)
  })
  default = {}

  validation {
    condition     = contains(["fargate", "ec2"], var.workers.capacity)
    error_message = "The spot lane runs on fargate or ec2."
  }
  validation {
    condition     = var.workers.on_demand_share >= 0 && var.workers.on_demand_share <= 100
    error_message = "on_demand_share is a percentage."
  }
  validation {
    condition     = (var.workers.vpc_id == null) == (var.workers.subnet_ids == null)
    error_message = "vpc_id and subnet_ids go together."
  }
  validation {
    condition     = var.workers.instance_types == null ? true : length(var.workers.instance_types) >= 3
    error_message = "Spot capacity is reclaimed by type: give at least three instance types."
  }
  validation {
    condition     = alltrue([for n in [var.workers.spot_max, var.workers.on_demand_max] : n >= 0 && n <= 1000 && floor(n) == n])
    error_message = "spot_max and on_demand_max are whole numbers of 0 to 1000."
  }
  validation {
    condition = contains(
      ["fixed", "minimize-workers", "grace-period", "queue", "reserve", "adaptive-grace", "hads-cc", "burst-hads", "sheaf"], var.workers.policy
    )
    error_message = "The policies are fixed, minimize-workers, grace-period, queue, reserve, adaptive-grace, hads-cc, burst-hads and sheaf."
  }
  validation {
    condition = (
      var.workers.grace_s >= 0 && var.workers.drain_s > 0 && var.workers.reclaims_per_hour >= 0 &&
      alltrue([for n in [var.workers.boot_s, var.workers.spot_price, var.workers.on_demand_price] : n == null ? true : n > 0])
    )
    error_message = "grace_s and reclaims_per_hour are not below 0; drain_s, boot_s and prices are above 0."
  }
}

# What people are told

variable "dashboard" {
  description = "Whether there is a CloudWatch dashboard. An account has three for nothing."
  type        = bool
  default     = true
}

variable "alarms" {
  description = "Whether there are CloudWatch alarms. They look at 15 metrics; an account has ten for nothing, others are $0.10 a month."
  type        = bool
  default     = true
}

variable "alarm_email" {
  description = "Who is told of alarms and of the budget; empty for nobody."
  type        = string
  default     = ""

  validation {
    condition     = var.alarm_email == "" || can(regex("^[^@\\s]+@[^@\\s]+$", var.alarm_email))
    error_message = "It must be an e-mail address."
  }
}

variable "budget_usd" {
  description = "What the grid may cost a month before alarm_email is told; 0 for no budget."
  type        = number
  default     = 0

  validation {
    condition     = var.budget_usd >= 0
    error_message = "A budget is not below 0."
  }
  validation {
    condition     = var.budget_usd == 0 || var.alarm_email != ""
    error_message = "A budget needs alarm_email: somebody must be told."
  }
}
